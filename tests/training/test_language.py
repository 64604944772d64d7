"""Pretraining: the loss is that of the real tokens, a grammar is learned, seeds repeat, bad rows are named."""

import math
import random

import pytest
import torch
import torch.nn.functional as F

from workbench.errors import DataError, ParameterError
from workbench.models.decoder import Decoder, DecoderConfig
from workbench.training.fine_tuning import FineTuneSettings
from workbench.training.language import fit_language_model, next_token_loss, perplexity

CONFIG = DecoderConfig(vocab_size=12, width=16, heads=2, layers=1, hidden=24, context=16)
QUICK = FineTuneSettings(steps=4, batch=6, lr=0.01)


def sentences(n=200, seed=0):
    """START, then pairs: a letter of five at random and its own answer, the letter plus five; END."""
    draw = random.Random(seed)
    letters = [[draw.randrange(2, 7) for _ in range(draw.randint(1, 6))] for _ in range(n)]
    return [[0, *(t for a in row for t in (a, a + 5)), 1] for row in letters]


def losses(model, rows):
    """Cross-entropy of each token but the first, one row and token at a time."""
    return [
        F.cross_entropy(model(torch.tensor([row[:i]]))[0, -1:], torch.tensor(row[i : i + 1])).item()
        for row in rows
        for i in range(1, len(row))
    ]


def weights(fit):
    return torch.cat([p.detach().flatten() for p in fit.model.parameters()])


@pytest.fixture(scope="module")
def learned():
    return fit_language_model(
        sentences(), CONFIG, FineTuneSettings(steps=150, batch=20, lr=0.02, warmup=10), report=50
    )


@torch.no_grad()
def test_loss_and_perplexity_are_the_mean_over_real_tokens_whatever_the_batches(learned):
    rows = sentences(9, seed=1)
    by_hand = losses(learned.model, rows)
    assert float(next_token_loss(learned.model, rows)) == pytest.approx(sum(by_hand) / len(by_hand), rel=1e-5)
    for batch in (1, 4, 32):
        assert perplexity(learned.model, rows, batch) == pytest.approx(
            math.exp(sum(by_hand) / len(by_hand)), rel=1e-5
        )


def test_it_learns_a_grammar_down_to_its_entropy(learned):
    """A letter's answer is certain; the rest is 5 letters alike, and an end that is due after 1 … 6 pairs alike."""
    held, entropy = sentences(400, seed=2), 0.0
    for row in held:
        pairs = (len(row) - 2) // 2
        end = [0, *(1 / (7 - k) for k in range(1, 7))]  # the chance of an end after k pairs
        entropy -= sum(math.log((1 - end[k]) / 5) for k in range(pairs)) + math.log(end[pairs])
    best = math.exp(entropy / sum(len(row) - 1 for row in held))
    found = perplexity(learned.model, held)
    assert best * 0.99 < found < best * 1.1 < perplexity(Decoder(CONFIG), held) / 3
    for letter in range(2, 7):
        assert learned.model.generate([[0, letter]], 1) == [[letter + 5]]
    assert [row["step"] for row in learned.history] == [1, 51, 101, 150]
    assert learned.history[-1]["loss"] < 0.6 * learned.history[0]["loss"]
    assert learned.seconds > 0 and not learned.model.training


def test_the_same_seed_gives_the_same_weights_and_another_does_not():
    config = DecoderConfig(**{**vars(CONFIG), "dropout": 0.1})
    state = torch.get_rng_state()
    one, two, other = (weights(fit_language_model(sentences(20), config, QUICK, seed=s)) for s in (3, 3, 4))
    assert torch.equal(one, two) and not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), state)


def test_perplexity_takes_no_dropout_and_leaves_the_mode_alone():
    model, rows = Decoder(DecoderConfig(**{**vars(CONFIG), "dropout": 0.5})).train(), sentences(5)
    assert perplexity(model, rows) == perplexity(model, rows) and model.training
    model.eval()
    assert perplexity(model, rows) == perplexity(model, rows) and not model.training


def test_who_prefers_nothing_is_as_perplexed_as_the_vocabulary_is_large():
    model = Decoder(CONFIG)
    model.embed_tokens.weight.data.zero_()
    assert perplexity(model, sentences(20)) == pytest.approx(12, rel=1e-6)


def test_rows_that_cannot_be_learned_from_are_named():
    for rows, came in (
        ([], "no row"),
        ([[0, 1], [1]], "1 to 2 came"),
        ([[0] * 17, [1, 2]], "2 to 17 came"),
        ([[0, 1], []], "0 to 2 came"),
    ):
        with pytest.raises(DataError, match=f"from 2 to 16 tokens, but {came}"):
            fit_language_model(rows, CONFIG, QUICK)
        with pytest.raises(DataError, match=came):
            perplexity(Decoder(CONFIG), rows)
    with pytest.raises(ParameterError, match="from 0 to 11, but 0 to 12 came"):
        fit_language_model([[0, 12, 1]], CONFIG, QUICK)


def test_a_loss_that_is_not_finite_stops_with_the_step():
    with pytest.raises(ParameterError, match=r"not finite in step \d: lower lr"):
        fit_language_model(sentences(20), CONFIG, FineTuneSettings(steps=9, batch=6, lr=1e30, warmup=0))
