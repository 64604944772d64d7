"""Exercises that answer back: what is asked, what is right, what people get wrong, and hints one at a time."""

from __future__ import annotations

import html
import math
import os
import sys
from collections import Counter
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from importlib import import_module, metadata
from typing import Any

import numpy as np

from workbench.errors import ParameterError, suggest

MODULES = ("models", "isometries", "trees", "learning", "rim")  # of lessons 1 to 5, in this order
COLOURS = {"right": "#009e73", "wrong": "#d55e00", "open": "#0072b2"}
SIGNS = {"right": "✓", "wrong": "✗", "open": "…"}


@dataclass(frozen=True)
class Exercise:
    """One exercise of a lesson.

    asks: the task in a sentence. verify: takes an answer and returns None if it is right, else what is wrong with it,
    in a sentence that does not give the answer away. hints: one more is shown after each wrong answer. insight: what
    is worth remembering, shown with a right answer. mistakes: wrong answers that people give, each of which verify
    must reject (a test tries them).
    """

    asks: str
    verify: Callable[[Any], str | None]
    hints: tuple[str, ...]
    insight: str
    mistakes: tuple[Any, ...]


@dataclass(frozen=True)
class Verdict:
    """What `check` found: state is "right", "wrong" or "open" (not answered). True if it is right."""

    name: str
    state: str
    text: str
    hint: str = ""

    def __bool__(self) -> bool:
        return self.state == "right"

    def __str__(self) -> str:
        return f"{SIGNS[self.state]} {self.name}: {self.text}" + (
            f"\n  Hint: {self.hint}" if self.hint else ""
        )

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """A line with a coloured edge; the sign says it, too, for those who do not see the colour."""
        hint = f"<br><em>Hint:</em> {html.escape(self.hint)}" if self.hint else ""
        return (
            f'<div role="status" style="border-left: 4px solid {COLOURS[self.state]}; padding: 4px 10px">'
            f"<strong>{SIGNS[self.state]} {html.escape(self.name)}</strong> {html.escape(self.text)}{hint}</div>"
        )


_tries: Counter[str] = Counter()


@cache
def exercises() -> dict[str, Exercise]:
    """All exercises by name, "1.1" to "5.4": lesson, then exercise."""
    found = {}
    for lesson, module in enumerate(MODULES, 1):
        of_lesson = import_module(f"workbench.lessons.{module}").EXERCISES
        found |= {f"{lesson}.{k}": exercise for k, exercise in enumerate(of_lesson, 1)}
    return found


def check(name: str, answer: Any = ...) -> Verdict:
    """Is this the answer to the exercise? Says what is wrong, and with each wrong answer one hint more.

    name: such as "2.1". answer: whatever the exercise asks for, a number, an array or a function; `...` is none yet.
    An answer that cannot be judged (it raises, is NaN or of another kind) is wrong, not an error.

    ParameterError for a name that no exercise has.
    """
    known = exercises()
    if name not in known:
        there = f"there are {', '.join(known)}"
        raise ParameterError(f"no exercise is called {name!r}{suggest(str(name), known)}: {there}")
    exercise = known[name]
    if answer is ...:
        return Verdict(name, "open", exercise.asks)
    try:
        wrong = exercise.verify(answer)
    except Exception as e:  # a function of the student's may raise anything
        wrong = f"Your answer stops with {type(e).__name__}: {e}"
    if wrong is None:
        _tries.pop(name, None)
        return Verdict(name, "right", exercise.insight)
    hint = exercise.hints[min(_tries[name], len(exercise.hints) - 1)]
    _tries[name] += 1
    return Verdict(name, "wrong", wrong, hint)


def start(seed: int = 0) -> None:
    """Begin a lesson: seeds torch, and lets Colab show live views."""
    import torch

    torch.manual_seed(seed)
    if "google.colab" in sys.modules:  # its notebooks show third-party widgets only if asked to
        sys.modules["google.colab"].output.enable_custom_widget_manager()
    print(f"workbench {metadata.version('hyperbolic-workbench')}, {os.cpu_count()} cores, seed {seed}: ready")


def number(answer: Any, expected: float, what: str, rtol: float = 0.01, atol: float = 0.0) -> str | None:
    """None if the answer is the expected number within the tolerance, else a sentence. For `verify`."""
    try:
        value = float(answer)
    except (TypeError, ValueError):
        return f"Expected a number ({what}), but a {type(answer).__name__} came."
    if not math.isfinite(value):
        return f"Expected a finite number ({what}), but {value} came."
    if abs(value - expected) <= atol + rtol * abs(expected):
        return None
    if expected and value / expected < 0:
        return f"{what[0].upper()}{what[1:]} has the other sign."
    return f"{what[0].upper()}{what[1:]} is {'smaller' if abs(value) > abs(expected) else 'larger'} than {value:.6g}."


def function(answer: Any, oracle: Callable, inputs: list[tuple], what: str, rtol: float = 1e-6) -> str | None:
    """None if the answer is a function that agrees with the oracle on all inputs, else a sentence. For `verify`."""
    if not callable(answer):
        return f"Expected a function ({what}), but a {type(answer).__name__} came."
    for given in inputs:
        # A copy: an answer may write into what it is given.
        got, expected = np.asarray(answer(*deepcopy(given))), np.asarray(oracle(*given))
        if got.shape != expected.shape:
            return f"For {_told(given)} it returns shape {got.shape}, not {expected.shape}."
        if not np.allclose(got, expected, rtol=rtol, atol=1e-9):
            return f"For {_told(given)} it returns {_told((got,))}, which is not {what}."
    return None


def _told(values: tuple) -> str:
    return ", ".join(np.array2string(np.asarray(v), precision=4, threshold=6) for v in values)
