"""What a language model answered, taken out of what it wrote, and how often that is right.

The rules are those of the *HypLoRA* evaluation (arXiv 2410.04010) and of LLM-Adapters before it: the last number of
an arithmetic answer, the letter of a multiple choice, the first label of a commonsense answer.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from workbench.data.prompts import Prompt
from workbench.errors import ParameterError

TOLERANCE = 1e-3  # of numbers, as published
NUMBER = re.compile(r"-?\d+\.?\d*")
# The first that is found decides, by its last match.
LETTER = tuple(
    re.compile(pattern)
    for pattern in (
        r"\\boxed\{\\text\{\(?([A-E])\)?\}\}",
        r"\\boxed\{\(?([A-E])\)?\}",
        r"\(?([A-E])\)",
        r"(?i:answer is[:\s]+\(?([A-E])\b)",
        r"\bis[:\s]+([A-E])\.?\s*$",
        r"[Oo]ption\s+\(?([A-E])\b",
    )
)

# -- what was answered -----------------------------------------------------------------------------


def number(text: str) -> float:
    """The last number in a text, commas left out; infinity if there is none.

    A minus right before a digit counts as a sign, so "7-4" ends in -4: write spaces, as the training texts do.
    """
    found = NUMBER.findall(text.replace(",", ""))
    return float(found[-1]) if found else math.inf


def letter(text: str) -> str | None:
    r"""The letter A to E that a text settles on, None if none.

    Looked for in this order: \boxed{\text{A}}, \boxed{A}, "(A)" or "A)", "answer is A" in any case, "is A." at the
    end, "option A". The last match of the first pattern that occurs. The letter stands alone as a word ("the answer
    is clear" names none), and comes back as a capital.
    """
    for pattern in LETTER:
        if found := pattern.findall(text.strip()):
            return found[-1].upper()
    return None


def label(text: str, labels: Sequence[str]) -> str | None:
    """The first of some labels ("true", "answer3", …) in a text, in any case; None if none."""
    found = re.search("|".join(map(re.escape, labels)), text, re.IGNORECASE) if labels else None
    return next(name for name in labels if name.lower() == found[0].lower()) if found else None


def extract(text: str, prompt: Prompt) -> float | str | None:
    """What a text answers to a prompt: a number, a letter or a label, as the prompt's labels say."""
    if not prompt.labels:
        return number(text)
    return letter(text) if all(len(name) == 1 for name in prompt.labels) else label(text, prompt.labels)


def is_right(text: str, prompt: Prompt) -> bool:
    """Whether a text answers as the prompt's answer has it; numbers to 0.001.

    Raises:
        ParameterError: a prompt without labels whose answer is no number.
    """
    found = extract(text, prompt)
    if prompt.labels:
        return found == prompt.answer
    try:
        return abs(found - float(prompt.answer)) <= TOLERANCE
    except ValueError as e:
        raise ParameterError(
            f"a prompt without labels needs a number for an answer, but has {prompt.answer!r}"
        ) from e


def prefix_value(equation: str, numbers: Sequence[float]) -> float:
    """Value of a prefix equation: "* number0 - number1 2" is numbers[0] · (numbers[1] − 2).

    NaN for what is no equation, or none of these numbers, or divides by 0: a model may write anything.
    """
    known = {f"number{i}": float(value) for i, value in enumerate(numbers)}
    stack: list[float] = []
    try:
        for token in reversed(equation.split()):
            if token in OPERATIONS:
                stack.append(OPERATIONS[token](stack.pop(), stack.pop()))
            else:
                stack.append(known[token] if token in known else float(token))
    except (IndexError, ValueError, ArithmeticError):
        return math.nan
    return stack[0] if len(stack) == 1 else math.nan


OPERATIONS = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b,
}

# -- how often it is right -------------------------------------------------------------------------


@dataclass(frozen=True)
class Accuracy:
    """right: one truth value a question, in order, for paired comparisons."""

    right: NDArray[np.bool_]

    @property
    def rate(self) -> float:
        return float(self.right.mean())

    @property
    def se(self) -> float:
        """Binomial standard error √(p(1 − p)/n): what other questions of the kind would change."""
        return math.sqrt(self.rate * (1 - self.rate) / len(self.right))

    def interval(self, z: float = 1.96) -> tuple[float, float]:
        """Wilson's interval, 95 % by default; it keeps its width where none or all are right."""
        n, p = len(self.right), self.rate
        middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        return max(0.0, (middle - half) / (1 + z * z / n)), min(1.0, (middle + half) / (1 + z * z / n))

    def __str__(self) -> str:
        return f"{100 * self.rate:.1f} ± {100 * self.se:.1f} %"


def exact_match(texts: Sequence[str], prompts: Sequence[Prompt]) -> Accuracy:
    """Share of texts that answer their prompts.

    Raises:
        ParameterError: none, or other than one text a prompt.
    """
    if not prompts or len(texts) != len(prompts):
        raise ParameterError(f"one text a prompt is needed, but {len(texts)} came for {len(prompts)} prompts")
    return Accuracy(np.array([is_right(t, p) for t, p in zip(texts, prompts, strict=True)]))


def over_seeds(runs: Sequence[Accuracy]) -> tuple[float, float]:
    """Mean rate of runs that differ by their seed, and its standard error sd/√runs (NaN for one run)."""
    if not runs:
        raise ParameterError("at least one run is needed, but none came")
    rates = np.array([run.rate for run in runs])
    se = float(rates.std(ddof=1) / math.sqrt(len(rates))) if len(rates) > 1 else math.nan
    return float(rates.mean()), se
