"""Multiple choice by likelihood: against products of conditional probabilities, at any batch size, for both kinds of
models, and against exact chances."""

from __future__ import annotations

import json
import math
from importlib.util import find_spec
from itertools import product

import numpy as np
import pytest
import torch
from torch import nn

from workbench.data import prompts as sets
from workbench.data.prompts import Prompt
from workbench.errors import ParameterError
from workbench.evaluation.multiple_choice import MultipleChoice, ask, multiple_choice
from workbench.models.helm import HELM
from workbench.models.helm_config import HELMConfig
from workbench.models.pieces import Pieces
from workbench.models.twins import LlamaTwin, TwinConfig

SIZES = {"vocab_size": 270, "layers": 2, "heads": 2, "hidden": 13, "context": 64}
QUESTIONS = [
    Prompt("Where did the cat sit?", "B", ("on the hat", "on the mat", "nowhere at all"), ("A", "B", "C")),
    Prompt("Who sat?", "A", ("the cat", "a mat"), ("A", "B")),
    Prompt("On what?", "D", ("hat", "bat", "rat", "mat"), ("A", "B", "C", "D")),
]


@pytest.fixture(scope="module")
def pieces() -> Pieces:
    return Pieces.train(["the cat sat on the mat . where who what ?"] * 8, 270)


def helm(**changes) -> HELM:
    return HELM(HELMConfig(**SIZES | {"dim": 11, "head_dim": 4} | changes))


class Unigram(nn.Module):
    """Finds each token as likely as its number of votes, whatever came before."""

    def __init__(self, votes: dict[int, float]) -> None:
        super().__init__()
        weights = torch.full((270,), 1e-9)
        for token, vote in votes.items():
            weights[token] = vote
        self.logs = nn.Parameter((weights / weights.sum()).log())

    def states(self, ids):
        return ids

    def logits(self, states):
        return self.logs.expand(*states.shape, -1)


# -- scores ------------------------------------------------------------------------------------------------------
def test_a_score_is_the_product_of_conditional_probabilities(pieces):
    model = helm().eval()
    found = multiple_choice(model, pieces.encode, QUESTIONS, start=Pieces.END)
    for prompt, scores in zip(QUESTIONS, found.scores, strict=True):
        for option, score in zip(prompt.options, scores, strict=True):
            read = [Pieces.END, *pieces.encode(f"Question: {prompt.question}\nAnswer:")]
            total = 0.0
            for token in pieces.encode(f" {option}"):
                p = model(torch.tensor([read])).detach()[0, -1].double().softmax(-1)
                total += math.log(p[token])
                read.append(token)
            assert score == pytest.approx(total, abs=1e-4)


@pytest.mark.parametrize("batch", [2, 5, 64])
def test_scores_do_not_depend_on_the_batch(pieces, batch):
    one, other = (multiple_choice(helm(), pieces.encode, QUESTIONS, batch=b) for b in (1, batch))
    np.testing.assert_allclose(np.concatenate(one.scores), np.concatenate(other.scores), atol=1e-5)


def test_a_model_of_transformers_is_asked_in_the_same_way(pieces):
    pytest.importorskip("transformers")
    from workbench.models.helm_transformers import wrapped

    for model in (helm(), LlamaTwin(TwinConfig(**SIZES, width=16))):
        ours, theirs = (multiple_choice(m, pieces.encode, QUESTIONS) for m in (model, wrapped(model)))
        np.testing.assert_allclose(np.concatenate(ours.scores), np.concatenate(theirs.scores), atol=1e-5)


def test_normalising_takes_back_what_a_longer_answer_loses():
    """Every character is a token and as likely as any: the shorter answer is likelier, by character none is."""
    model = Unigram({i: 1.0 for i in range(256)})
    prompt = Prompt("?", "B", ("ab", "abcd"), ("A", "B"))
    found = multiple_choice(model, lambda text: list(text.encode()), [prompt])
    short, long = found.scores[0]
    blank = long - 2 * short  # the blank in front counts as a token in both, as a character in neither
    assert (found.scores[0].argmax(), found.plain.rate) == (0, 0)
    assert blank == pytest.approx(math.log(256), rel=1e-6)
    assert (found.scores[0] / found.lengths[0]).argmax() == 1
    assert found.normalised.rate == 1


def test_worked_examples_are_read_before_the_question(pieces):
    seen = []

    def encode(text: str) -> list[int]:
        seen.append(text)
        return pieces.encode(text)

    multiple_choice(helm(), encode, QUESTIONS[:1], shots=QUESTIONS[1:2])
    assert seen[0] == "Question: Who sat?\nAnswer: the cat\n\nQuestion: Where did the cat sit?\nAnswer:"
    assert seen[1:] == [" on the hat", " on the mat", " nowhere at all"]


def test_what_goes_beyond_the_context_loses_its_beginning(pieces):
    long = [Prompt("cat " * 80 + "?", "A", ("mat", "hat"), ("A", "B"))]
    model = helm()
    found = multiple_choice(model, pieces.encode, long)
    assert found.shortened == 1
    ids = (pieces.encode(f"Question: {long[0].question}\nAnswer:") + pieces.encode(" mat"))[-65:]
    logs = model.eval()(torch.tensor([ids[:-1]])).detach().double().log_softmax(-1)[0]
    n = len(pieces.encode(" mat"))
    expected = sum(float(logs[-i, ids[-i]]) for i in range(1, n + 1))
    assert found.scores[0][0] == pytest.approx(expected, abs=1e-5)


def test_the_model_is_left_as_it_was(pieces):
    for training in (True, False):
        model = helm().train(training)
        multiple_choice(model, pieces.encode, QUESTIONS)
        assert model.training is training


# -- chance ------------------------------------------------------------------------------------------------------
def outcome(right: list[bool], choices: list[int]) -> MultipleChoice:
    scores = [np.eye(k)[0] for k in choices]
    return MultipleChoice(
        tuple(scores),
        tuple(np.ones(k, dtype=int) for k in choices),
        np.array([0 if hit else 1 for hit in right]),
    )


def test_chance_and_its_p_value_are_exact_for_unequal_numbers_of_answers():
    choices = [2, 3, 4, 4, 5]
    law = np.zeros(6)
    for hits in product([0, 1], repeat=5):
        law[sum(hits)] += math.prod(1 / k if hit else 1 - 1 / k for hit, k in zip(hits, choices, strict=True))
    for n in range(6):
        found = outcome([i < n for i in range(5)], choices)
        assert found.plain.rate == n / 5
        expected = min(1, 2 * min(law[: n + 1].sum(), law[n:].sum()))
        assert found.p_value(found.plain) == pytest.approx(expected)
    assert found.chance == pytest.approx(np.mean([1 / k for k in choices]))


def test_the_verdict_says_whether_guessing_would_do():
    rng = np.random.default_rng(0)
    guessed = outcome(list(rng.random(400) < 0.25), [4] * 400)
    knows, worse = (outcome(list(rng.random(400) < p), [4] * 400) for p in (0.5, 0.1))
    assert "not told from chance" in guessed.verdict()
    assert "above chance" in knows.verdict()
    assert "below chance" in worse.verdict()
    assert "Chance is 25.0 %" in knows.verdict()


def test_an_untrained_model_is_wrong_as_often_as_chance_says(pieces):
    rng = np.random.default_rng(0)
    words = ["cat", "mat", "hat", "sat", "on", "the", "who", "what"]
    asked = []
    for _ in range(150):
        options = tuple(str(w) for w in rng.choice(words, 4, replace=False))
        asked.append(Prompt("what ?", "ABCD"[rng.integers(4)], options, tuple("ABCD")))
    found = multiple_choice(helm(), pieces.encode, asked)
    assert found.p_value(found.plain) > 0.001


# -- sets --------------------------------------------------------------------------------------------------------
def test_a_registered_set_is_asked_with_examples_of_its_training_part(pieces, monkeypatch):
    asked = []
    parts = {"test": QUESTIONS[:2], "train": QUESTIONS[2:]}
    monkeypatch.setattr(sets, "load", lambda name, split: asked.append((name, split)) or parts[split])
    found = ask(helm(), pieces.encode, "arc_easy", shots=1, limit=1)
    assert asked == [("arc_easy", "test"), ("arc_easy", "train")]
    assert len(found) == 1
    expected = multiple_choice(helm(), pieces.encode, QUESTIONS[:1], shots=QUESTIONS[2:])
    np.testing.assert_array_equal(found.scores[0], expected.scores[0])
    with pytest.raises(ParameterError, match="1 questions to work as examples, not 2"):
        ask(helm(), pieces.encode, "arc_easy", shots=2)


# -- what goes wrong ---------------------------------------------------------------------------------------------
def test_nonsense_is_refused_in_a_sentence(pieces):
    model = helm(context=8)
    number = Prompt("1 + 1?", "2")
    cases = [
        (dict(prompts=[]), "questions and a batch of 1 or more are needed, but 0 and 16"),
        (dict(prompts=QUESTIONS, batch=0), "but 3 and 0 came"),
        (dict(prompts=[number]), "question 0, counted from 0, needs two choices or more, but has 0"),
        (dict(prompts=QUESTIONS, shots=[number]), "worked example 0"),
        (dict(prompts=[Prompt("?", "A", ("cat " * 20, "x"), ("A", "B"))]), "beyond the context of 8"),
        (dict(prompts=QUESTIONS, template="{problem}"), "one place, {question}, but came as '{problem}'"),
        (dict(prompts=QUESTIONS, template=""), "no tokens to read before its answers"),
    ]
    for arguments, message in cases:
        with pytest.raises(ParameterError) as caught:
            multiple_choice(model, pieces.encode, **arguments)
        assert message in str(caught.value)
    with pytest.raises(ParameterError, match="has no tokens"):
        multiple_choice(model, lambda text: [] if text.startswith(" ") else [1], QUESTIONS)
    model = helm()
    with torch.no_grad():
        model.head.weight.fill_(math.nan)
    with pytest.raises(ParameterError, match="9 of 9 likelihoods are no numbers"):
        multiple_choice(model, pieces.encode, QUESTIONS)


# -- lm-eval -----------------------------------------------------------------------------------------------------
@pytest.mark.skipif(find_spec("lm_eval") is None, reason="needs lm_eval")
def test_lm_eval_comes_to_the_same_accuracies(pieces, tmp_path):

    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    from workbench.models.helm_transformers import fast_tokenizer, wrapped

    model, asked = helm(), QUESTIONS * 7
    rows = [{"question": p.question, "choices": p.options, "gold": p.labels.index(p.answer)} for p in asked]
    file = tmp_path / "questions.json"
    file.write_text("\n".join(json.dumps(row) for row in rows))
    task = {
        "task": "cats", "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(file)}},
        "output_type": "multiple_choice", "test_split": "test", "doc_to_choice": "{{choices}}",
        "doc_to_text": "Question: {{question}}\nAnswer:", "doc_to_target": "{{gold}}",
        "metric_list": [{"metric": name} for name in ("acc", "acc_norm")],
    }  # fmt: skip
    evaluated = HFLM(pretrained=wrapped(model), tokenizer=fast_tokenizer(pieces), batch_size=4)
    scored = simple_evaluate(evaluated, tasks=[task], task_manager=TaskManager(), bootstrap_iters=0)
    found = multiple_choice(model, pieces.encode, asked)
    assert scored["results"]["cats"]["acc,none"] == pytest.approx(found.plain.rate)
    assert scored["results"]["cats"]["acc_norm,none"] == pytest.approx(found.normalised.rate)
