"""Answers taken out of texts, and error bars against what they are estimates of."""

import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.data.prompts import Prompt
from workbench.errors import ParameterError
from workbench.evaluation.answers import (
    Accuracy,
    exact_match,
    extract,
    is_right,
    label,
    letter,
    number,
    over_seeds,
    prefix_value,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("3 + 4 = 7\nThe answer is 7.", 7),
        ("He has 1,234,567 of them", 1234567),
        ("It costs $ 2.50", 2.5),
        ("first 5, then -0.25", -0.25),
        ("7-4", -4),
        ("", math.inf),
        ("no digits", math.inf),
    ],
)
def test_the_last_number_counts(text, expected):
    assert number(text) == expected


@given(st.integers(-(10**9), 10**9), st.text(alphabet="abc .,\n"))
def test_a_number_is_found_behind_any_words(value, words):
    assert number(f"{words} 12 {words} {value:,}") == value


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"so \boxed{\text{C}} and not (A)", "C"),
        (r"so \boxed{\text{(C)}}", "C"),
        (r"so \boxed{D}, (A), or \boxed{(B)}", "B"),
        ("(A) is wrong, so it is (E)", "E"),
        ("choose B) 17", "B"),
        ("The correct answer is D because A is less", "D"),
        ("THE ANSWER IS: b", "B"),
        ("the answer is clear", None),
        ("It is B.", "B"),
        ("It is B. Really", None),
        ("Thus option C fits", "C"),
        ("Option C fits, not option (D", "D"),
        ("", None),
        ("F)", None),
    ],
)
def test_the_letter_is_the_last_of_the_most_specific_form(text, expected):
    assert letter(text) == expected


@pytest.mark.parametrize(
    ("text", "labels", "expected"),
    [
        ("the correct answer is answer3, not answer1", ("answer1", "answer2", "answer3"), "answer3"),
        ("True, false", ("true", "false"), "true"),
        ("Solution2!", ("solution1", "solution2"), "solution2"),
        ("ending4", tuple(f"ending{i}" for i in range(1, 5)), "ending4"),
        ("option 1", ("option1", "option2"), None),
        ("anything", (), None),
    ],
)
def test_the_first_label_counts(text, labels, expected):
    assert label(text, labels) == expected


def test_a_prompt_knows_what_to_look_for():
    assert extract("(A) 3", Prompt("q", "3")) == 3
    assert extract("(A) 3", Prompt("q", "A", ("3", "4"), ("A", "B"))) == "A"
    assert extract("true (A) 3", Prompt("q", "true", ("true", "false"), ("true", "false"))) == "true"


def test_numbers_are_right_to_a_thousandth_and_nothing_is_wrong():
    prompt = Prompt("q", "1.8333333333333335")
    assert is_right("about 1.8334", prompt) and not is_right("1.85", prompt) and not is_right("", prompt)
    assert is_right("2.", Prompt("q", "2"))
    with pytest.raises(ParameterError, match="needs a number for an answer, but has 'x'"):
        is_right("3", Prompt("q", "x"))


def test_prefix_equations_agree_with_python():
    rng = random.Random(1)
    numbers = [rng.uniform(1, 9) for _ in range(4)]

    def grown(depth):
        if depth == 0 or rng.random() < 0.3:
            i = rng.randrange(5)
            return ("2.5", "2.5") if i == 4 else (f"number{i}", repr(numbers[i]))
        sign, left, right = rng.choice("+-*/"), grown(depth - 1), grown(depth - 1)
        return f"{sign} {left[0]} {right[0]}", f"({left[1]} {sign} {right[1]})"

    for _ in range(200):
        prefix, infix = grown(4)
        try:
            expected = eval(infix)
        except ZeroDivisionError:
            expected = math.nan
        assert prefix_value(prefix, numbers) == pytest.approx(expected, rel=1e-12, nan_ok=True)


@pytest.mark.parametrize(
    "equation", ["", "+ 1", "1 2", "/ 1 0", "number3", "number-1", "what", "* number0 numberX"]
)
def test_what_is_no_equation_has_no_value(equation):
    assert math.isnan(prefix_value(equation, [1.0]))


def test_the_standard_error_is_the_spread_over_other_questions():
    rng = np.random.default_rng(0)
    runs = [Accuracy(rng.random(400) < 0.3) for _ in range(2000)]
    rates = np.array([run.rate for run in runs])
    assert runs[0].se == pytest.approx(rates.std(), rel=0.1)
    covered = [low <= 0.3 <= high for low, high in (run.interval() for run in runs)]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.02)
    mean, se = over_seeds(runs)
    assert abs(mean - 0.3) < 4 * se and se == pytest.approx(rates.std() / math.sqrt(2000), rel=0.01)


def test_an_interval_keeps_its_width_where_none_or_all_are_right():
    for right, inside in ((np.zeros(50, bool), 0.05), (np.ones(50, bool), 0.95)):
        accuracy = Accuracy(right)
        low, high = accuracy.interval()
        assert accuracy.se == 0 and 0 <= low < inside < high <= 1


def test_exact_match_keeps_the_order_of_the_questions():
    prompts = [Prompt(str(i), str(i)) for i in range(4)]
    found = exact_match(["it is 0", "2", "2", "none"], prompts)
    assert found.right.tolist() == [True, False, True, False]
    assert found.rate == 0.5 and str(found) == "50.0 ± 25.0 %"
    assert math.isnan(over_seeds([found])[1])


@pytest.mark.parametrize("texts", [[], ["1", "2"]])
def test_one_text_a_prompt_is_needed(texts):
    with pytest.raises(ParameterError, match=f"but {len(texts)} came for 1 prompts"):
        exact_match(texts, [Prompt("q", "1")])
    with pytest.raises(ParameterError, match="none came"):
        over_seeds([])
