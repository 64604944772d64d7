"""Word problems whose numbers are masked, with an equation each, and text of their kind to train a language model on.

Whoever turns "Ann has number0 apples and eats number1 of them …" into "- number0 number1" has solved it, whatever the
numbers are. This is how SVAMP is asked (Patel, Bhattamishra & Goyal, NAACL 2021): trained on MAWPS and ASDiv-A,
tested on stories varied by hand. `made` does the same in small, with stories of our own.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass

from workbench.data import prompts, registry
from workbench.data._problems import BAGS, COLOURS, DAYS, GAINS, HE, LOSSES, PLACES, SHE, THINGS, TRAIN
from workbench.data._problems_test import TEST
from workbench.errors import ParameterError, suggest

TEMPLATES = {"train": TRAIN, "test": TEST}
MADE = {"train": 3000, "test": 1000}  # how many problems("made") are
LARGEST = 1000  # of the results in made problems
WHOLE = r"(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]+)?"
FIGURE = rf"(?<!\w)(?:{WHOLE}|(?<!\.)\.[0-9]+)(?![0-9]|(?:st|nd|rd|th)\b)"  # "4th" and "mp3" are no numbers
FRACTION = r"(?<![\w./])[0-9]+/[1-9][0-9]*(?![0-9/]|[.,][0-9])"


@dataclass(frozen=True)
class Problem:
    """A word problem without its numbers.

    question: number0, number1, … stand for its numbers.  equation: prefix, "- number0 * number1 number2".
    numbers: their values.  answer: the value of the equation.
    """

    question: str
    equation: str
    numbers: tuple[float, ...]
    answer: float


def problems(name: str = "mawps_asdiv", split: str = "train") -> list[Problem]:
    """Problems by name: "mawps_asdiv" (3,138; its test part is SVAMP, 1,000) or "made" (3,000 and 1,000, no file).

    Of the training problems 12 have an equation that misses their answer, as published: most are rounded.

    Raises:
        ParameterError: no set or part of that name.
        DataError: a file is not here and cannot be downloaded, or is damaged.
    """
    known = ("mawps_asdiv", "made")
    if name not in known:
        raise ParameterError(f"no problems {name!r}{suggest(name, known)}; there are {', '.join(known)}")
    if split not in MADE:
        raise ParameterError(f"problems have the parts {', '.join(MADE)}, but {split!r} was asked for")
    if name == "made":
        return made(MADE[split], 0, split)
    found = prompts.load(name, split)
    masked = _masked_questions(split)
    return [
        Problem(question, p.solution, p.numbers, float(p.answer))
        for question, p in zip(masked, found, strict=True)
    ]


def _masked_questions(split: str) -> list[str]:
    """Questions of MAWPS-ASDiv as they stand in the file, where `prompts` puts the numbers back."""
    path = registry.fetch(prompts.SETS["mawps_asdiv"][1][split])
    return [row["Question"].strip() for row in prompts._rows(path)]


# -- numbers ---------------------------------------------------------------------------------------


def mask_numbers(text: str) -> tuple[str, tuple[float, ...]]:
    """A text with number0, number1, … in place of its figures, in order, and their values.

    >>> mask_numbers("Ann has 3 cups, Bo 1/2 of 1,200.")
    ('Ann has number0 cups, Bo number1 of number2.', (3.0, 0.5, 1200.0))

    ParameterError if the text has such names already.
    """
    if found := re.search(r"number[0-9]", text):
        raise ParameterError(f"numbers are masked once, but {found[0]!r} stands in the text already")
    values: list[float] = []

    def name(figure: re.Match) -> str:
        over, _, under = figure[0].replace(",", "").partition("/")
        values.append(float(over) / float(under or 1))
        return f"number{len(values) - 1}"

    return re.sub(f"{FRACTION}|{FIGURE}", name, text), tuple(values)


def _mask_solution(text: str, values: tuple[float, ...]) -> str:
    """A worked solution: figures already seen get the name they have, new ones (results) the next names."""
    names: dict[float, str] = {}
    for i, value in enumerate(values):
        names.setdefault(value, f"number{i}")
    following = iter(range(len(values), len(values) + len(text)))

    def name(figure: re.Match) -> str:
        value = float(figure[0].replace(",", ""))
        if value not in names:
            names[value] = f"number{next(following)}"
        return names[value]

    text = re.sub("[–−]", "-", text).replace("×", "*").replace("÷", "/")
    return re.sub(r"(?<=[0-9]) ?[xX] ?(?=number[0-9])", " * ", re.sub(FIGURE, name, text))


# -- made ------------------------------------------------------------------------------------------


def made(n: int, seed: int = 0, split: str = "train") -> list[Problem]:
    """n different word problems written by rule: stories of one and two steps about names, things and places.

    "test" has other templates than "train": asked the other way round, more numbers that do not matter. All its words
    occur in "train". All values are whole, from 1 to 1,000. The same arguments give the same problems.

    ParameterError for n that is no whole number from 1 to 20,000, or another split.
    """
    return [problem for problem, _ in _drawn(n, seed, split)]


def _drawn(n: int, seed: int, split: str) -> Iterator[tuple[Problem, str]]:
    """Problems, and a sentence that states the result of each."""
    if isinstance(n, bool) or not isinstance(n, int) or not 1 <= n <= 20_000:
        raise ParameterError(f"n must be a whole number from 1 to 20,000, but came as {n!r}")
    if split not in TEMPLATES:
        raise ParameterError(
            f"made problems have the parts {', '.join(TEMPLATES)}, but {split!r} was asked for"
        )
    draw, seen = random.Random(f"{split} {seed}"), set()
    while len(seen) < n:
        text, equation, result, *others = draw.choice(TEMPLATES[split])
        words = _words(draw)
        question = text.format(**words)
        if question in seen:
            continue
        seen.add(question)
        numbers = _numbers(draw, text, (equation, *others))
        answer = _value(equation, numbers)
        equation = re.sub("([0-9])", r"number\1", equation)
        yield Problem(question, equation, tuple(map(float, numbers)), float(answer)), result.format(**words)


def _words(draw: random.Random) -> dict[str, str]:
    """What stands in the places of a template."""
    a, b, c = draw.sample(SHE + HE, 3)
    he, him, his = ("she", "her", "her") if a in SHE else ("he", "him", "his")
    thing, other = draw.sample(THINGS, 2)
    bag, place = draw.choice(BAGS), draw.choice(PLACES)
    (day, later, last), (red, blue) = draw.sample(DAYS, 3), draw.sample(COLOURS, 2)
    (got, get), (lost, lose) = draw.choice(GAINS).split(), draw.choice(LOSSES).split()
    words = dict(A=a, B=b, C=c, he=he, He=he.capitalize(), him=him, his=his, thing=thing, things=thing + "s")
    words |= dict(others=other + "s", bag=bag, bags=bag + "s", place=place, day=day, later=later, last=last)
    return words | dict(red=red, blue=blue, got=got, get=get, lost=lost, lose=lose)


def _numbers(draw: random.Random, text: str, expressions: tuple[str, ...]) -> tuple[int, ...]:
    """Numbers for which every step of every expression is a whole number from 1 to LARGEST."""
    count = len(set(re.findall("number[0-9]", text)))
    while True:
        numbers = tuple(draw.randrange(2, draw.choice((10, 25, 100))) for _ in range(count))
        if all(_value(expression, numbers) for expression in expressions):
            return numbers


def _value(expression: str, numbers: tuple[int, ...]) -> int:
    """Value of "- 0 * 1 2"; 0 if a step of it is no whole number from 1 to LARGEST."""
    stack: list[int] = []
    for token in reversed(expression.split()):
        if token.isdigit():
            stack.append(numbers[int(token)])
            continue
        a, b = stack.pop(), stack.pop()
        if token == "/" and a % b:
            return 0
        value = {"+": a + b, "-": a - b, "*": a * b, "/": a // b}[token]
        if not 1 <= value <= LARGEST:
            return 0
        stack.append(value)
    return stack[0]


# -- text to train on ------------------------------------------------------------------------------


def texts(name: str = "gsm8k+mawps_asdiv", n: int = 6000, seed: int = 1) -> list[str]:
    """Masked text to train a language model on, before it learns to write equations.

    name: one or more, with "+" between: "gsm8k", training questions with worked solutions; "mawps_asdiv", training
    questions; "made", n questions of `made`, each with its result as a sentence ("She has number0 + number1 apples").
    seed: of the made ones; none of them stands in problems("made"). No prefix equation is in any text, and no test
    question of GSM8K, SVAMP or `made`. (LLM-Adapters' MAWPS is another matter: 193 of its test questions are among
    the training questions of MAWPS-ASDiv.)

    Raises:
        ParameterError: no text of that name.
        DataError: a file is not here and cannot be downloaded, or is damaged.
    """
    known = {"gsm8k": _gsm8k, "mawps_asdiv": _mawps_asdiv, "made": lambda: _made(n, seed)}
    for part in name.split("+"):
        if part not in known:
            raise ParameterError(f"no text {part!r}{suggest(part, known)}; there are {', '.join(known)}")
    return [text for part in dict.fromkeys(name.split("+")) for text in known[part]()]


def _gsm8k() -> list[str]:
    found = []
    for prompt in prompts.without(prompts.load("gsm8k", "train"), *_tests()):
        question, values = mask_numbers(prompt.question)
        found.append(f"{question} {_mask_solution(prompt.solution, values)}")
    return found


def _mawps_asdiv() -> list[str]:
    whole = prompts.load("mawps_asdiv", "train")
    kept = {id(prompt) for prompt in prompts.without(whole, *_tests())}
    masked = _masked_questions("train")
    return [question for prompt, question in zip(whole, masked, strict=True) if id(prompt) in kept]


def _tests() -> list[list[prompts.Prompt]]:
    return [prompts.load(name, "test") for name in ("gsm8k", "svamp", "mawps_asdiv")]


def _made(n: int, seed: int) -> list[str]:
    asked = {problem.question for problem in problems("made")}
    drawn = _drawn(n, seed, "train")
    return [f"{problem.question} {result}" for problem, result in drawn if problem.question not in asked]
