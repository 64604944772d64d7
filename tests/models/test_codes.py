"""Facts about codes and codebooks, against counting by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.errors import DataError
from workbench.manifolds import Euclidean, PoincareBall
from workbench.models.codes import capacity, code_stats, deduplicate, uniqueness

quick = settings(max_examples=15, deadline=None)


@quick
@given(st.integers(1, 60), st.integers(1, 3), st.integers(0, 1000))
def test_deduplicated_codes_are_unique_and_count_in_order(n, levels, seed):
    codes = torch.randint(3, (n, levels), generator=torch.Generator().manual_seed(seed))
    found = deduplicate(codes)
    assert uniqueness(found) == 1
    assert torch.equal(found[:, :-1], codes)
    seen = {}
    for row in found.tolist():
        key = tuple(row[:-1])
        assert row[-1] == seen.get(key, 0)
        seen[key] = row[-1] + 1
    assert uniqueness(codes) == len(seen) / n


def test_usage_and_perplexity():
    stats = code_stats(torch.tensor([[0, 0], [1, 0], [0, 0], [1, 0]]), (4, 2))
    assert stats.used == [2, 1]
    assert stats.utilisation == [0.5, 0.5]
    assert stats.perplexity == pytest.approx([2.0, 1.0])


def test_capacity_is_the_rule():
    found = capacity(PoincareBall(4.0), 16, 1.0, 128, 4)
    assert found.needed == pytest.approx(15 * 2 * 1.0)
    assert found.available == pytest.approx(4 * np.log(128))
    assert not found.ok and "need (dim - 1)" in found.sentence
    assert capacity(Euclidean(), 16, 100.0, 2, 1).ok
    assert capacity(1.0, 4, 3.0, (32, 32, 32)).ok


def test_no_codes_are_unique_and_a_flat_list_is_told():
    assert uniqueness(torch.zeros(0, 3, dtype=torch.int64)) == 1
    assert deduplicate(torch.zeros(0, 3, dtype=torch.int64)).shape == (0, 4)
    for wrong in (torch.zeros(3, dtype=torch.int64), torch.zeros(3, 2)):
        with pytest.raises(DataError, match=r"whole numbers of shape \(N, levels\)"):
            deduplicate(wrong)
