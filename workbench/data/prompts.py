"""Questions with answers that language models are tuned and tested on: arithmetic and common sense.

The texts are those that the evaluation of *HypLoRA* (arXiv 2410.04010, section 5) reads. GSM8K, SVAMP, AQuA and
MAWPS-ASDiv come from their official addresses, the others from files that LLM-Adapters (Hu et al., EMNLP 2023) made,
which have no address of their own: their message says where they are taken from. `read` takes a file of one's own.

Look for `leaks` before training. The MAWPS of LLM-Adapters has 28 of its 238 test questions in its training part,
7 in its validation part, and MAWPS-ASDiv has 193 of them; math_data.json of the same project holds most questions of
four test sets.
"""

from __future__ import annotations

import csv
import json
import re
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.data import registry
from workbench.data._tables import COMPRESSED, existing
from workbench.errors import DataError, ParameterError, suggest

LETTERS = "ABCDE"


@dataclass(frozen=True)
class Prompt:
    """One question.

    question: without its choices.  answer: a number as text ("18", "-0.5") or one of the labels.
    options: texts of the choices, one a label; empty where there is none.
    labels: what an answer may be called: ("A", …), ("answer1", …), ("true", "false"); empty for numbers.
    text: all that a model reads, choices included; without one, the question.
    solution: what a model may learn to write, a worked answer or an equation.  numbers: what number0, number1, … in
    that equation stand for (MAWPS-ASDiv and its SVAMP).
    """

    question: str
    answer: str
    options: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    text: str = ""
    solution: str = ""
    numbers: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not self.text:
            object.__setattr__(self, "text", self.question)
        if self.labels and self.answer not in self.labels:
            raise DataError(f"the answer should be one of {', '.join(self.labels)}, but is {self.answer!r}")
        if len(self.options) != len(self.labels):
            raise DataError(f"{len(self.labels)} labels need as many options, but {len(self.options)} came")


# -- what is known ---------------------------------------------------------------------------------


def splits(name: str) -> tuple[str, ...]:
    """The parts that a set has here, of "train", "valid" and "test"."""
    return tuple(_known(name)[1])


def load(name: str, split: str = "test") -> list[Prompt]:
    """A set by name, downloaded where it has an address.

    >>> load("gsm8k")[0].answer
    '18'

    Raises:
        ParameterError: no set or part of that name; names the nearest, or those there are.
        DataError: its file is not here and cannot be downloaded, or is damaged.
    """
    parse, parts = _known(name)
    if split not in parts:
        raise ParameterError(f"{name} has here the parts {', '.join(parts)}, but {split!r} was asked for")
    path = registry.fetch(parts[split])
    return _parsed(path, parse)


def read(path: str | Path) -> list[Prompt]:
    """A file of one's own: JSON (a list, or an object a line), plain or compressed, in LLM-Adapters' format.

    Each object has "instruction" or "question", an "answer", and maybe "input" (more of the question) and "output"
    (what to learn to write). Choices are found in the text where it ends in "Answer format: …" or has
    "Answer Choices: (A) …". This reads their math_10k.json, commonsense_170k.json and hellaswag/test.json.

    Raises:
        DataError: no such file, not JSON, or an object without question or answer; says which.
    """
    return _parsed(existing(path), _adapters)


def _known(name: str) -> tuple[Callable[[dict], Prompt], dict[str, str]]:
    if name not in SETS:
        raise ParameterError(
            f"no questions {name!r}{suggest(name, SETS)}; there are {', '.join(SETS)}, "
            "and prompts.read takes a file of your own"
        )
    return SETS[name]


def _parsed(path: Path, parse: Callable[[dict], Prompt]) -> list[Prompt]:
    prompts = []
    for number, row in enumerate(_rows(path)):
        try:
            prompts.append(parse(row))
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as e:
            reason = f"there is no {e}" if isinstance(e, KeyError) else str(e)
            raise DataError(f"{path}: question {number}, counted from 0, cannot be read: {reason}") from e
    if not prompts:
        raise DataError(f"{path} has no questions")
    return prompts


def _rows(path: Path) -> list[dict[str, Any]]:
    """Objects of a JSON list, of JSON lines, or the rows of a CSV with a header."""
    try:
        with COMPRESSED.get(path.suffix.lower(), open)(path, "rt", encoding="utf-8-sig", newline="") as f:
            if ".csv" in path.suffixes:
                return list(csv.DictReader(f))
            text = f.read()
        whole = text.lstrip().startswith("[")
        return json.loads(text) if whole else [json.loads(line) for line in text.split("\n") if line.strip()]
    except (OSError, EOFError, UnicodeDecodeError, json.JSONDecodeError, csv.Error, zlib.error) as e:
        raise DataError(f"{path} cannot be read as JSON or CSV ({type(e).__name__}: {e})") from e


# -- one reader a format ---------------------------------------------------------------------------


def _gsm8k(row: dict) -> Prompt:
    worked, answer = row["answer"].rsplit("####", 1)
    worked = re.sub(r"<<.*?>>", "", worked).strip()  # marks for a calculator
    answer = plain(answer)
    return Prompt(row["question"].strip(), answer, solution=f"{worked}\nThe answer is {answer}.")


def _svamp(row: dict) -> Prompt:
    body, question = row["Body"].strip(), row["Question"].strip()
    stop = "" if body[-1] in ".?!," else "."
    return Prompt(f"{body}{stop} {question}", plain(row["Answer"]), solution=row["Equation"])


def _mawps(row: dict) -> Prompt:
    return Prompt(row["original_text"].strip(), plain(row["ans"]), solution=row["equation"])


def _masked(row: dict) -> Prompt:
    """A question with number0, number1, … in place of its numbers, and a prefix equation of them."""
    numbers = row["Numbers"].split()
    question = re.sub(r"number(\d+)", lambda m: plain(numbers[int(m[1])]), row["Question"].strip())
    values = tuple(float(n) for n in numbers)
    return Prompt(question, plain(row["Answer"]), solution=row["Equation"], numbers=values)


def _aqua(row: dict) -> Prompt:
    question, answer = row["question"].strip(), row["correct"]
    options = tuple(option[2:].strip() for option in row["options"])
    labels = tuple(LETTERS[: len(options)])
    choices = " ".join(f"({label}) {option}" for label, option in zip(labels, options, strict=True))
    solution = f"{row['rationale'].strip()}\nThe answer is ({answer})."
    return Prompt(question, answer, options, labels, f"{question} Answer Choices: {choices}", solution)


def _adapters(row: dict) -> Prompt:
    """LLM-Adapters' {"instruction", "answer"}: the choices stand in the text."""
    text = str(row.get("instruction") or row["question"]).strip()
    if row.get("input"):
        text = f"{text}\n{str(row['input']).strip()}"
    answer, solution = str(row["answer"]).strip(), str(row.get("output") or "")
    if "Answer format:" in text:
        question, options, labels = _formatted(text)
    elif "Answer Choices:" in text:
        question, options, labels = _lettered(text)
    else:
        return Prompt(text, plain(answer), text=text, solution=solution)
    return Prompt(question, answer, options, labels, text, solution)


def _formatted(text: str) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """Question, options and labels of "… Answer1: … Answer2: … Answer format: answer1/answer2"."""
    body, names = text.rsplit("Answer format:", 1)
    labels = tuple(names.strip().split("/"))
    body = body.split("question: ", 1)[-1]  # what comes before is the same for every question
    name = labels[0].rstrip("0123456789")
    if name == labels[0]:  # true/false: the labels are the options
        return body.strip(), labels, labels
    question, *options = re.split(rf"(?i:\b{re.escape(name)})\d: ?", body)
    return question.split("given sentence: ", 1)[-1].strip(), tuple(o.strip() for o in options), labels


def _lettered(text: str) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    question, choices = text.rsplit("Answer Choices:", 1)
    found = re.split(r"(?:^|\s)\(([A-E])\) ", f" {choices.strip()}")[1:]
    return question.strip(), tuple(o.strip() for o in found[1::2]), tuple(found[::2])


def plain(number: float | str) -> str:
    """A number as people write it: 12.0 is "12", " 2,125" is "2125"; what is no number stays as it is."""
    text = str(number).strip().replace(",", "")
    return text[:-2] if re.fullmatch(r"-?\d+\.0", text) else text


def _sense(name: str, *parts: str) -> tuple[Callable[[dict], Prompt], dict[str, str]]:
    return _adapters, {part: f"cs-{name}-{part}" for part in parts}


# Name: reader, and the registered file of each part.
SETS: dict[str, tuple[Callable[[dict], Prompt], dict[str, str]]] = {
    "gsm8k": (_gsm8k, {"train": "gsm8k-train", "test": "gsm8k-test"}),
    "svamp": (_svamp, {"test": "svamp"}),
    "mawps": (_mawps, {"train": "mawps-train", "valid": "mawps-valid", "test": "mawps-test"}),
    "aqua": (_aqua, {"valid": "aqua-dev", "test": "aqua-test"}),
    "mawps_asdiv": (_masked, {"train": "mawps-asdiv", "test": "svamp-templated"}),
    "math9k": (_adapters, {"train": "math9k-train"}),
    "arc_challenge": _sense("arc-challenge", "train", "test"),
    "arc_easy": _sense("arc-easy", "train", "test"),
    "boolq": _sense("boolq", "test"),
    "openbookqa": _sense("openbookqa", "train", "test"),
    "piqa": _sense("piqa", "test"),
    "siqa": _sense("social-i-qa", "test"),
    "winogrande": _sense("winogrande", "test"),
}


# -- does the test stand in the training? ----------------------------------------------------------


@dataclass(frozen=True)
class Leaks:
    """pairs: (place in the test, first place in training) of every test question that was trained on.  of: how many
    test questions there are.  As text, a sentence."""

    pairs: tuple[tuple[int, int], ...]
    of: int

    def __len__(self) -> int:
        return len(self.pairs)

    def __str__(self) -> str:
        if not self.pairs:
            return f"None of the {self.of:,} test questions stands in the training questions."
        share = 100 * len(self.pairs) / self.of
        verb = "stands" if len(self) == 1 else "stand"
        return (
            f"{len(self):,} of {self.of:,} test questions ({share:.1f} %) {verb} in the training questions."
        )


def normalised(text: str) -> str:
    """Lower-case words and numbers alone: what two copies of a question share, whatever their spaces and marks."""
    return " ".join(re.findall(r"\w+", text.lower()))


def leaks(train: Iterable[Prompt], test: Sequence[Prompt]) -> Leaks:
    """Test questions that are also training questions, by normalised text, choices included.

    Only whole questions are found: other wordings of one story with other numbers are not.
    """
    first: dict[str, int] = {}
    for place, prompt in enumerate(train):
        first.setdefault(normalised(prompt.text), place)
    keys = [normalised(prompt.text) for prompt in test]
    return Leaks(tuple((i, first[key]) for i, key in enumerate(keys) if key in first), len(keys))


def without(train: Iterable[Prompt], *tests: Iterable[Prompt]) -> list[Prompt]:
    """The training questions, in order, that stand in none of the tests."""
    seen = {normalised(prompt.text) for test in tests for prompt in test}
    return [prompt for prompt in train if normalised(prompt.text) not in seen]
