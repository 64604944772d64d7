"""Masked word problems: numbers come back, every made equation says what its story says, no test is trained on."""

import os
import re
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.data import arithmetic, prompts
from workbench.data.arithmetic import MADE, TEMPLATES, made, mask_numbers, problems, texts
from workbench.data.prompts import normalised, plain
from workbench.errors import ParameterError
from workbench.evaluation.answers import prefix_value
from workbench.models.words import cut

EVERY = [(split, *template) for split, templates in TEMPLATES.items() for template in templates]
INFIX = re.compile(r"(?:\( )?number\d(?: [-+*/()]| number\d)+")


def real(name="gsm8k", split="train"):
    """The set, or a skip where the machine does not have it."""
    if "WORKBENCH_DATA" not in os.environ:
        pytest.skip("WORKBENCH_DATA is not set")
    return prompts.load(name, split)


def unmasked(text, values):
    return re.sub(r"number(\d+)", lambda m: plain(values[int(m[1])]), text)


# -- masks -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "masked", "values"),
    [
        ("3 cups, 3.5 pounds.", "number0 cups, number1 pounds.", (3, 3.5)),
        ("It cost $1,200. Then 5.", "It cost $number0. Then number1.", (1200, 5)),
        (
            "1/2 of 12, then 24/7/365.",
            "number0 of number1, then number2/number3/number4.",
            (0.5, 12, 24, 7, 365),
        ),
        ("1,2,3 and 1,2345", "number0,number1,number2 and number3,number4", (1, 2, 3, 1, 2345)),
        ("7 and 7 are 7", "number0 and number1 are number2", (7, 7, 7)),
        ("the 4th mp3 of 21st B2", "the 4th mp3 of 21st B2", ()),
        (
            "200g at 5% for .5 hours, 3-page",
            "number0g at number1% for number2 hours, number3-page",
            (200, 5, 0.5, 3),
        ),
        ("1/0 or 16/1,000", "number0/number1 or number2/number3", (1, 0, 16, 1000)),
        ("Nothing.", "Nothing.", ()),
    ],
)
def test_figures_are_named_in_order_and_marks_stay(text, masked, values):
    assert mask_numbers(text) == (masked, tuple(map(float, values)))


@given(st.text("0123456789.,/ athnrd$%-", max_size=40))
def test_masking_numbers_the_names_and_leaves_all_but_figures(text):
    masked, values = mask_numbers(text)
    assert [int(i) for i in re.findall(r"number(\d+)", masked)] == list(range(len(values)))
    rest = re.escape(re.sub(r"number\d+", "\0", masked)).replace("\0", "[0-9.,/]+")
    assert re.fullmatch(rest, text)


FIGURES = st.one_of(
    st.integers(0, 10**9).map(lambda n: (f"{n:,}", n)),
    st.integers(0, 10**9).map(lambda n: (str(n), n)),
    st.decimals(0, 10**6, places=2).map(lambda x: (f"${x:,}", x)),
    st.tuples(st.integers(0, 99), st.integers(1, 99)).map(lambda ab: ("{}/{}".format(*ab), Fraction(*ab))),
)
OTHERS = st.sampled_from(["cups", "4th", "mp3", "x.", "?", "-", "-a-"]).map(lambda word: (word, None))


@given(st.lists(st.tuples(st.one_of(FIGURES, OTHERS), st.sampled_from([" ", ". ", ", ", " / ", ": "]))))
def test_figures_have_their_values_wherever_they_stand(pieces):
    expected = [float(value) for (_, value), _ in pieces if value is not None]
    names = iter(range(len(pieces)))
    shown = [
        (word if value is None else "$"[: word.count("$")] + f"number{next(names)}") + gap
        for (word, value), gap in pieces
    ]
    assert mask_numbers("".join(word + gap for (word, _), gap in pieces)) == ("".join(shown), tuple(expected))


def test_a_text_is_masked_once():
    with pytest.raises(ParameterError, match="'number0' stands"):
        mask_numbers("number0 and 3")


# -- made ------------------------------------------------------------------------------------------


def test_the_sentence_written_apart_from_each_equation_says_the_same():
    for split in TEMPLATES:
        for problem, result in arithmetic._drawn(600, 3, split):
            [infix] = INFIX.findall(result)
            assert set(infix) <= set("number0123456789+-*/() ")
            values = {f"number{i}": value for i, value in enumerate(problem.numbers)}
            assert eval(infix, {"__builtins__": {}}, values) == problem.answer
            assert prefix_value(problem.equation, problem.numbers) == problem.answer


SOLVERS = {
    "How many more {things} does {B} have than {A}?": lambda n: n[1] - n[0],
    "How many fewer {things} does {B} have than {A}?": lambda n: n[0] - n[1],
    "Each {thing} costs number0 dollars. How many dollars": lambda n: n[0] * n[1],
    "{A} has number0 {things}, number1 fewer than {B}.": lambda n: n[0] + n[1],
    "{B} has number1 times as many. How many {things} do they have together?": lambda n: n[0] * (1 + n[1]),
    "on {last} than on {day}?": lambda n: n[2] - n[0],
    "are still there?": lambda n: sum([n[0]] * int(n[1])) - n[0] * n[2],
    "How many dollars did {he} have at first?": lambda n: n[0] + n[1] * n[2],
    "{B} has number1 fewer than {A}. How many {things} do they have together?": lambda n: 2 * n[0] - n[1],
    "{A} {lost} number0 {things}. {He} has number1 {things} left.": lambda n: n[0] + n[1],
    "number0 friends share number1": lambda n: n[1] / n[0],
    "and {B} has number2. How many more {things} does {A} have than {B}?": lambda n: n[1] - n[2],
}


@pytest.mark.parametrize("phrase", SOLVERS)
def test_stories_that_are_easily_got_wrong_are_solved_by_hand(phrase):
    [equation] = [template[2] for template in EVERY if phrase in template[1]]
    numbers = (24.0, 6.0, 2.0)
    named = re.sub("([0-9])", r"number\1", equation)
    assert prefix_value(named, numbers) == SOLVERS[phrase](numbers)


@pytest.mark.parametrize(("split", "template"), [(split, rest) for split, *rest in EVERY])
def test_a_template_names_its_numbers_in_order_and_uses_them(split, template):
    text, equation, result, *others = template
    named = re.findall(r"number(\d)", text)
    assert named == sorted(set(named)) and text.endswith("?")
    used = sorted(re.findall(r"\d", equation))
    assert used == sorted(re.findall(r"number(\d)", result)) and set(used) <= set(named)
    assert all(set(re.findall(r"\d", other)) <= set(named) for other in others)


def test_the_parts_share_no_template_and_the_test_no_new_word():
    stories = [normalised(template[1]) for template in EVERY]
    assert len(set(stories)) == len(stories) and min(map(len, TEMPLATES.values())) > 30
    train, test = problems("made"), problems("made", "test")
    assert not {p.question for p in train} & {p.question for p in test}
    known = {word for p in train for word in cut(p.question)}
    assert {word for p in test for word in cut(p.question)} <= known


def test_the_test_has_more_numbers_that_do_not_matter():
    def idle(split):
        return sum(
            len(set(p.equation.split()) - set("+-*/")) < len(p.numbers) for p in problems("made", split)
        )

    assert idle("test") / MADE["test"] > 2 * idle("train") / MADE["train"] > 0


@pytest.mark.parametrize("split", TEMPLATES)
def test_made_problems_are_different_whole_and_the_same_again(split):
    some = made(500, 7, split)
    assert some == made(500, 7, split) and some != made(500, 8, split)
    assert made(100, 7, split) == some[:100]
    assert len({p.question for p in some}) == 500 == len(some)
    for p in some:
        assert mask_numbers(unmasked(p.question, p.numbers)) == (p.question, p.numbers)
        assert all(v == int(v) > 0 for v in (*p.numbers, p.answer)) and p.answer <= 1000
        assert "{" not in p.question


def test_every_template_is_drawn():
    for split, templates in TEMPLATES.items():
        drawn = {(p.equation, re.sub(r"\w*[A-Z]\w*", "", p.question)[-12:]) for p in made(1000, 0, split)}
        assert len({equation for equation, _ in drawn}) == len({template[1] for template in templates})


def test_bad_input_is_named():
    for n in (0, True, 2.0, 20_001):
        with pytest.raises(ParameterError, match="n must be"):
            made(n)
    with pytest.raises(ParameterError, match="train, test"):
        made(1, split="valid")
    with pytest.raises(ParameterError, match="train, test"):
        problems("mawps_asdiv", "valid")
    with pytest.raises(ParameterError, match="mawps_asdiv"):
        problems("mawps_asdif")
    with pytest.raises(ParameterError, match="no text 'gsm9k'"):
        texts("made+gsm9k")


# -- texts -----------------------------------------------------------------------------------------


def test_made_texts_state_results_in_words_and_hold_no_problem_of_the_parts():
    found = texts("made", n=500)
    assert 450 < len(found) <= 500 and texts("made", n=500) == found
    assert all(INFIX.search(text) and not re.search(r"[-+*/] number\d number\d", text) for text in found)
    for split in TEMPLATES:
        asked = {p.question for p in problems("made", split)}
        assert not asked & {text[: text.index("?") + 1] for text in found}


def test_the_real_problems_are_masked_as_in_their_files():
    train, test = (problems(split=split) for split in ("train", "test") if real("mawps_asdiv", split))
    assert (len(train), len(test)) == (3138, 1000)
    first = test[0]
    assert first.question.startswith(
        "julia played tag with number0 kids on monday . she played tag with number1"
    )
    assert (first.equation, first.numbers, first.answer) == ("- number0 number1", (18.0, 10.0), 8.0)
    for part, misses in ((train, 12), (test, 0)):
        assert sum(not abs(prefix_value(p.equation, p.numbers) - p.answer) < 1e-3 for p in part) == misses
        for p in part:
            assert [int(i) for i in re.findall(r"number(\d+)", p.question)] == list(range(len(p.numbers)))


def test_no_test_question_stands_in_the_texts_with_its_numbers_or_without():
    tests = [p for name in ("gsm8k", "svamp", "mawps_asdiv") for p in real(name, "test")]
    found = texts("gsm8k+mawps_asdiv")
    assert len(found) == 7473 + 3138 == len(prompts.load("gsm8k", "train")) + 3138  # none had to be left out
    assert {p.question for p in problems()} == set(found[7473:])  # the question, and no equation
    masked = {normalised(mask_numbers(p.question)[0]) for p in tests}
    masked |= {normalised(p.question) for p in problems(split="test")}
    assert not masked & {normalised(text) for text in found}
    questions = {normalised(text[: i + 1]) for text in found for i, c in enumerate(text) if c in "?."}
    assert not masked & questions


def test_a_worked_solution_uses_the_names_of_its_question():
    text = "Ann had 3 apples, 3 pears. 3 + 3 = 6 fruits, 6 x 2 – 1 = 11, 12/2."
    assert arithmetic._mask_solution(text, (3.0, 3.0, 2.0)) == (
        "Ann had number0 apples, number0 pears. number0 + number0 = number3 fruits, "
        "number3 * number2 - number4 = number5, number6/number2."
    )
