"""Question sets: each format is read as written, choices are found, and questions of a test are found in training."""

import gzip
import json
import os
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.data import prompts, registry
from workbench.data.prompts import Prompt, leaks, normalised, plain, read, without
from workbench.errors import DataError, ParameterError


def written(path, rows, lines=True):
    text = "\n".join(json.dumps(row) for row in rows) if lines else json.dumps(rows, indent=1)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)
    return path


SENSE = {
    "instruction": "Please choose the correct answer to the question: What answers an answer?\n\nAnswer1: a dog "
    "Answer2: b: two Answer3: c\n\nAnswer format: answer1/answer2/answer3",
    "output": "the correct answer is answer2",
    "answer": "answer2",
}


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.json.gz"])
@pytest.mark.parametrize("lines", [True, False])
def test_choices_are_found_in_a_formatted_text_however_it_is_stored(tmp_path, name, lines):
    [prompt] = read(written(tmp_path / name, [SENSE], lines))
    assert prompt.question == "What answers an answer?"
    assert prompt.options == ("a dog", "b: two", "c") and prompt.labels == ("answer1", "answer2", "answer3")
    assert prompt.answer == "answer2" and prompt.solution == SENSE["output"]
    assert prompt.text == SENSE["instruction"]


@pytest.mark.parametrize(
    ("text", "answer", "question", "options"),
    [
        (
            "Please answer the following question with true or false, question: is it so?\n\n"
            "Answer format: true/false",
            "false",
            "is it so?",
            ("true", "false"),
        ),
        (
            "Please choose the correct answer to fill in the blank to complete the given sentence: He saw _ .\n\n"
            "Option1: Ann Option2: Bo Answer format: option1/option2",
            "option1",
            "He saw _ .",
            ("Ann", "Bo"),
        ),
        (
            "Please choose the correct solution to the question: dresser\n\nSolution1: a pin \n\nSolution2: \n\n"
            "Answer format: solution1/solution2",
            "solution2",
            "dresser",
            ("a pin", ""),
        ),
        ("How many? Answer Choices: (A) (x + 1) (B) y (C) B) 3", "C", "How many?", ("(x + 1)", "y", "B) 3")),
    ],
)
def test_every_way_of_writing_choices_is_understood(tmp_path, text, answer, question, options):
    path = written(tmp_path / "a.json", [{"instruction": text, "answer": answer}])
    [prompt] = read(path)
    assert (prompt.question, prompt.options, prompt.answer) == (question, options, answer)


def test_a_plain_question_has_no_choices_and_its_input_belongs_to_it(tmp_path):
    rows = [{"instruction": "Add.", "input": "2 and 3", "output": "2 + 3 = 5", "answer": 5.0}]
    assert read(written(tmp_path / "a.json", rows)) == [
        Prompt("Add.\n2 and 3", "5", text="Add.\n2 and 3", solution="2 + 3 = 5")
    ]


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_plain_number_keeps_its_value(number):
    assert float(plain(number)) == number
    assert plain(float(int(number) % 1000)) == str(int(number) % 1000)


def test_the_formats_of_the_sources_are_read():
    gsm = prompts._gsm8k({"question": "Q ", "answer": "1+1=<<1+1=2>>2 and\n#### 2,125"})
    assert (gsm.answer, gsm.solution) == ("2125", "1+1=2 and\nThe answer is 2125.")
    svamp = {"Body": "He had 3.5", "Question": "What now?", "Answer": 3.5, "Equation": "e"}
    assert prompts._svamp(svamp).question == "He had 3.5. What now?"
    assert prompts._svamp(svamp).answer == "3.5"
    masked = prompts._masked(
        {
            "Question": "number1 of number0 , number10",
            "Numbers": "56.0 0.5 2 3 4 5 6 7 8 9 12.0",
            "Equation": "* number0 number1",
            "Answer": "28.0",
        }
    )
    assert masked.question == "0.5 of 56 , 12" and masked.answer == "28" and masked.numbers[:2] == (56.0, 0.5)
    aqua = prompts._aqua({"question": "Q?", "options": ["A)1", "B) 2 m"], "rationale": "so", "correct": "B"})
    assert aqua.text == "Q? Answer Choices: (A) 1 (B) 2 m" and aqua.options == ("1", "2 m")
    assert aqua.labels == ("A", "B") and aqua.solution.endswith("The answer is (B).")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "has no questions"),
        ("{not json", "cannot be read as JSON"),
        ('{"instruction": "x"}', "question 0, counted from 0, cannot be read: there is no 'answer'"),
        ('[{"instruction": "x", "answer": 1}, "text"]', "question 1, counted from 0"),
        ('{"question": "x Answer Choices: (A) 1 (B) 2", "answer": "E"}', "should be one of A, B, but is 'E'"),
        ('{"instruction": "x Answer format: answer1/answer2", "answer": "answer1"}', "2 labels need as many"),
    ],
)
def test_what_is_no_question_set_is_one_sentence(tmp_path, content, said):
    path = tmp_path / "a.json"
    path.write_text(content)
    with pytest.raises(DataError) as caught:
        read(path)
    assert said in str(caught.value) and str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_unknown_names_and_parts_are_refused_with_those_there_are(tmp_path):
    with pytest.raises(ParameterError, match="did you mean 'gsm8k'"):
        prompts.load("gsm8")
    with pytest.raises(ParameterError, match="svamp has here the parts test"):
        prompts.load("svamp", "train")
    with pytest.raises(DataError, match="there is no file"):
        read(tmp_path / "none.json")


def test_a_set_without_an_address_says_where_its_file_comes_from(tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBENCH_DATA", str(tmp_path))
    with pytest.raises(DataError, match=r"no direct download.*LLM-Adapters"):
        prompts.load("mawps")


def test_every_set_is_registered():
    files = [file for _, parts in prompts.SETS.values() for file in parts.values()]
    assert len(set(files)) == len(files) and set(files) <= set(registry.DATASETS)
    assert all(set(prompts.splits(name)) <= {"train", "valid", "test"} for name in prompts.SETS)


def test_planted_leaks_are_found_through_spaces_marks_and_capitals():
    rng = random.Random(0)
    train = [Prompt(f"Ann has {i} apples , and {rng.randrange(9)} pears .", "1") for i in range(50)]
    planted = [Prompt(train[i].question.upper().replace(" ,", ",") + "?!", "1") for i in (7, 3, 7)]
    test = [Prompt("Bo has 1 apple.", "1"), *planted]
    found = leaks(train, test)
    assert found.pairs == ((1, 7), (2, 3), (3, 7)) and len(found) == 3
    assert str(found) == "3 of 4 test questions (75.0 %) stand in the training questions."
    left = without(train, test)
    assert left == [p for i, p in enumerate(train) if i not in (3, 7)]
    assert str(leaks(left, test)) == "None of the 4 test questions stands in the training questions."


def test_the_same_question_with_other_choices_is_no_leak():
    one, other = (Prompt("Why?", "A", (x,), ("A",), text=f"Why? (A) {x}") for x in ("so", "thus"))
    assert not leaks([one], [other])


@given(st.text())
def test_normalising_twice_changes_nothing(text):
    assert normalised(normalised(text)) == normalised(text)


SIZES = {
    "gsm8k": {"train": 7473, "test": 1319},
    "svamp": {"test": 1000},
    "mawps": {"train": 1898, "valid": 237, "test": 238},
    "aqua": {"valid": 254, "test": 254},
    "mawps_asdiv": {"train": 3138, "test": 1000},
    "math9k": {"train": 9455},
    "arc_challenge": {"train": 1119, "test": 1172},
    "arc_easy": {"train": 2251, "test": 2376},
    "boolq": {"test": 3270},
    "openbookqa": {"train": 4957, "test": 500},
    "piqa": {"test": 1838},
    "siqa": {"test": 1954},
    "winogrande": {"test": 1267},
}


def here(name, split):
    if registry.local(prompts.SETS[name][1][split]) is None:
        pytest.skip(f"{name} is not under WORKBENCH_DATA")
    return prompts.load(name, split)


@pytest.mark.skipif("WORKBENCH_DATA" not in os.environ, reason="WORKBENCH_DATA is not set")
@pytest.mark.parametrize("name", SIZES)
def test_the_real_sets_are_whole(name):
    assert set(SIZES[name]) == set(prompts.splits(name))
    for split, size in SIZES[name].items():
        rows = here(name, split)
        assert len(rows) == size
        assert all(p.question and p.answer and p.question[:20] in p.text for p in rows)


@pytest.mark.skipif("WORKBENCH_DATA" not in os.environ, reason="WORKBENCH_DATA is not set")
def test_the_texts_are_those_of_the_published_evaluation():
    # 13 of AQuA differ in spaces and dashes alone.
    for name, least in (("svamp", 1000), ("gsm8k", 1319), ("mawps", 238), ("aqua", 241)):
        path = registry.local(f"eval-{name}")
        if path is None:
            pytest.skip("the evaluation prompts are not under WORKBENCH_DATA")
        published = {p.text: p.answer for p in read(path)}
        ours = here(name, "test")
        assert sum(published.get(p.text) == p.answer for p in ours) >= least, name
        assert {normalised(text) for text in published} == {normalised(p.text) for p in ours}, name


@pytest.mark.skipif("WORKBENCH_DATA" not in os.environ, reason="WORKBENCH_DATA is not set")
def test_28_questions_of_the_mawps_test_were_trained_on():
    assert len(leaks(here("mawps", "train"), here("mawps", "test"))) == 28
    assert len(leaks(here("mawps_asdiv", "train"), here("mawps", "test"))) == 193
    for name in ("gsm8k", "svamp", "mawps", "aqua"):
        assert not leaks(here("math9k", "train"), here(name, "test"))
