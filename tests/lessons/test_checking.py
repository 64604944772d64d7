"""Answers are judged, hints come one at a time, and nothing that is answered stops a notebook."""

import math

import pytest

from workbench.errors import ParameterError
from workbench.lessons import check, checking, exercises, start


def test_an_answer_is_open_then_wrong_with_a_hint_more_each_time_then_right():
    right = math.pi / 3
    assert check("2.3").state == check("2.3", ...).state == "open"
    hints = [check("2.3", 1.0).hint for _ in range(5)]
    assert hints[:3] == list(exercises()["2.3"].hints) and hints[3:] == [hints[2]] * 2
    verdict = check("2.3", right)
    assert verdict and not verdict.hint and verdict.text == exercises()["2.3"].insight
    assert check("2.3", 1.0).hint == hints[0]  # counted anew


def test_verdicts_read_well_as_text_and_as_html():
    wrong = checking.Verdict("9.9", "wrong", "1 < 2", "a & b")
    assert str(wrong) == "✗ 9.9: 1 < 2\n  Hint: a & b"
    assert (
        "1 &lt; 2" in wrong._repr_html_()
        and "a &amp; b" in wrong._repr_html_()
        and "✗" in wrong._repr_html_()
    )


def test_an_unknown_exercise_is_refused_with_what_there_is():
    with pytest.raises(ParameterError, match=r"no exercise is called '2.33'.*2\.3"):
        check("2.33", 1)


@pytest.mark.parametrize(
    "answer, says", [("x", "str"), (None, "NoneType"), (math.nan, "finite"), (-2.0, "sign"), (3.0, "smaller")]
)
def test_numbers_are_judged_in_a_sentence_that_does_not_tell(answer, says):
    assert says in checking.number(answer, 2.0, "the length")
    assert checking.number(2.005, 2.0, "the length") is None


def test_functions_are_judged_on_all_inputs():
    inputs = [(1.0,), (2.0,)]
    assert checking.function(lambda x: x * x, lambda x: x**2, inputs, "the square") is None
    assert "2" in checking.function(lambda x: x, lambda x: x**2, inputs, "the square")
    assert "shape" in checking.function(lambda x: [x, x], lambda x: x**2, inputs, "the square")
    assert "function" in checking.function(3, lambda x: x, inputs, "the square")


def test_a_session_starts_with_one_line(capsys):
    start(seed=3)
    assert "seed 3: ready" in capsys.readouterr().out


@pytest.mark.parametrize("name", exercises())
def test_mistakes_and_what_is_no_answer_get_a_sentence_and_a_hint(name):
    def stops(*given):
        raise ZeroDivisionError("division by zero")

    exercise = exercises()[name]
    assert len(exercise.mistakes) >= 2 and 2 <= len(exercise.hints) <= 3
    nonsense = (math.nan, "many", "a half", "five", None, stops, lambda *_: math.nan, lambda: 1)
    for wrong in (*exercise.mistakes, *nonsense):
        verdict = check(name, wrong)
        assert verdict.state == "wrong" and verdict.hint in exercise.hints, (wrong, verdict)
        text = verdict.text
        if text.startswith("Your answer stops with "):
            assert any(wrong is f for f in nonsense if callable(f)) or name[0] in "124", (wrong, text)
        else:
            assert text.endswith((".", "?") if name[0] == "1" else "."), (wrong, text)
            assert text[0].isupper() or name[0] == "5", (wrong, text)  # there some begin with a number


@pytest.mark.parametrize("name", ["2.1", "3.2", "3.4", "4.2", "5.2"])
def test_a_function_that_stops_is_a_wrong_answer(name):
    def stops(*given):
        raise ZeroDivisionError("division by zero")

    with pytest.raises(ZeroDivisionError):  # `check` turns it into a sentence
        exercises()[name].verify(stops)
    assert "ZeroDivisionError" in str(check(name, stops))
