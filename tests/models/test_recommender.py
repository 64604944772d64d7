"""One model, many settings: causality, padding, seeds, files, and what users ask."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from workbench.data.interactions import Interactions, synthetic
from workbench.errors import CheckpointError, DataError, ManifoldError, ParameterError
from workbench.files import save_tensors
from workbench.models.hmamba import Head
from workbench.models.recommender import (
    NAMED,
    HMambaFull,
    HMambaHalf,
    Recommender,
    RecommenderConfig,
    named,
)
from workbench.training.riemannian import make_optimizer, release

N = 25
SMALL = {"width": 16, "state": 4, "max_len": 12}
START = [named(n, **SMALL) for n in NAMED] + [
    named("hmamba_full", start=start, user_radius="sphere", layers=2, **SMALL) for start in ("tangent", "euclidean")
] + [
    named("gru4rec", space="lorentz", start="hyperboloid", head="dist2", user_radius="sphere", **SMALL),
    named("sasrec", space="poincare", start="hyperboloid", head="lorentz_sq", user_radius="free", **SMALL),
    named("hmamba_full", space="euclidean", head="dist", **SMALL),
]  # fmt: skip


def model(config=None, **changes):
    return Recommender(config or named("hmamba_full", **SMALL | changes), N).eval()


def batch(n=4, length=10, seed=0):
    generator = torch.Generator().manual_seed(seed)
    items = torch.randint(N, (n, length), generator=generator)
    sizes = torch.randint(1, length + 1, (n,), generator=generator)
    sizes[0] = length
    return items, torch.arange(length) < sizes[:, None]


def shop():
    names = [f"i{k}" for k in range(N)]
    titles = [f"Title {k}" for k in range(N - 1)] + ["Title 0"]
    data = Interactions.from_events(np.repeat([1, 2], [N, 1]), np.append(names, "i0"))
    assert data.n_items == N
    order = {name: title for name, title in zip(names, titles, strict=True)}
    return replace(data, titles=tuple(order[name] for name in data.items))


# -- histories ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("config", START, ids=str)
@torch.no_grad()
def test_what_comes_later_changes_nothing_before(config):
    m = model(config)
    items, mask = batch()
    mask = torch.ones_like(mask)
    changed = items.clone()
    changed[:, 6:] = (changed[:, 6:] + 1) % N
    a, b = m.states(items, mask), m.states(changed, mask)
    assert torch.allclose(a[:, :6], b[:, :6], atol=1e-6)
    assert (a[:, 6:] - b[:, 6:]).abs().amax(-1).gt(1e-6).all()


@pytest.mark.parametrize("config", START, ids=str)
@torch.no_grad()
def test_padding_of_any_kind_and_length_changes_nothing(config):
    m = model(config)
    items, mask = batch()
    scores = m.score_last(items, mask)
    assert scores.shape == (4, N)
    assert torch.equal(scores, m.score_last(items.masked_fill(~mask, -1), mask))
    longer = F.pad(items, (0, 2), value=10**6), F.pad(mask, (0, 2))
    assert torch.allclose(scores, m.score_last(*longer), atol=1e-5)
    for row in range(4):
        alone = items[row : row + 1, : int(mask[row].sum())]
        assert torch.allclose(
            scores[row], m.score_last(alone, torch.ones_like(alone, dtype=torch.bool))[0], atol=1e-5
        )


@torch.no_grad()
def test_a_row_without_any_item_is_harmless():
    m = model()
    items, mask = batch()
    mask[1] = False
    scores = m.score_last(items, mask)
    assert scores.isfinite().all()
    assert torch.allclose(scores[0], m.score_last(items[:1], mask[:1])[0], atol=1e-5)


def test_inference_has_no_dropout_and_leaves_the_mode_alone():
    m = model(dropout=0.5).train()
    items, mask = batch()
    assert torch.equal(m.score_last(items, mask), m.score_last(items, mask))
    assert m.training
    assert not torch.equal(m.states(items, mask), m.states(items, mask))


# -- scores ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("config", START, ids=str)
@torch.no_grad()
def test_scores_of_some_items_are_those_among_all(config):
    m = model(config)
    items, mask = batch()
    states = m.states(items, mask)
    table = m.table()
    everything = m.scores(states)
    assert torch.equal(everything, m.scores(states, table=table))
    some = torch.tensor([3, 3, 20])
    own = torch.randint(N, (*states.shape[:2], 5), generator=torch.Generator().manual_seed(1))
    for given in (None, table):
        assert torch.allclose(m.scores(states, some, given), everything[..., some], atol=1e-4)
        assert torch.allclose(m.scores(states, own, given), everything.gather(-1, own), atol=1e-4)
    assert torch.allclose(m.ranking_scores(states[0, 0]), m.ranking_scores(states)[0, 0], atol=1e-4)
    with pytest.raises(ParameterError, match="shape"):
        m.scores(states[0], own)


@torch.no_grad()
def test_points_lie_in_their_space_and_items_within_the_cap():
    for space in ("lorentz", "poincare", "euclidean"):
        m = model(space=space, c=0.5)
        m.items.tangent.mul_(1000)
        points = m.item_points()
        m.manifold.check(points)
        assert points.dtype == torch.float64
        if space != "euclidean":
            assert (m.manifold.dist0(points) <= 4 / 0.5**0.5 + 1e-9).all()
        states = m.states(*batch())
        assert torch.allclose(
            m.manifold.cdist(m.user_points(states[0]), points).square(),
            -model_head(m, "dist2")(
                states[0].double(), model_head(m, "dist2").table(m.items.tangent.double(), None)
            ),
            atol=1e-6,
        )


def model_head(m, kind):
    return Head(m.manifold, kind, m.config.user_radius, m.config.radius_cap)


def test_every_parameter_learns():
    for config in START:
        m = Recommender(config, N)
        items, mask = batch()
        loss = F.cross_entropy(m.scores(m.states(items, mask))[mask], items[mask]) + m.penalty
        loss.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in m.parameters()), config


def test_the_penalty_is_the_mean_length_over_items_only():
    m = model(radius_penalty=0.5)
    items, mask = batch()
    m.states(items, mask)
    rows = m.item_points()[items[mask]]
    assert torch.allclose(m.penalty, 0.5 * rows.norm(dim=-1).mean())
    assert float(model().penalty) == 0.0


def test_weights_follow_the_seed_and_leave_the_generator_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    a, b, c = model(), model(), model(seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))
    assert not torch.equal(a.items.tangent, c.items.tangent)


@pytest.mark.parametrize("optimizer", ["adam", "riemannian"])
def test_items_as_vectors_or_as_points_learn_the_same_task(optimizer):
    m = model(dropout=0.0, learn_c=True).train()
    step = make_optimizer(optimizer, m, 0.02)
    items, mask = batch(16)
    losses = []
    for _ in range(25):
        step.zero_grad()
        loss = F.cross_entropy(
            m.scores(m.states(items, mask))[:, :-1][mask[:, 1:]], items[:, 1:][mask[:, 1:]]
        )
        loss.backward()
        step.step()
        losses.append(float(loss.detach()))
    before = m.eval().score_last(items, mask)
    release(m)
    assert torch.allclose(m.score_last(items, mask), before, atol=1e-3)
    assert losses[-1] < 0.85 * losses[0]
    assert float(m.manifold.c.detach()) != 1.0


# -- what users ask ------------------------------------------------------------------------------------------
def test_recommendations_by_name_title_and_number_are_the_same():
    data = shop()
    m = model().bind(data)
    by_name = m.recommend(["i3", "i7", "i1"], k=5)
    assert by_name == m.recommend(["Title 3", "Title 7", "Title 1"], k=5)
    assert by_name == m.recommend([data.index("i3"), np.int64(data.index("i7")), data.index("i1")], k=5)
    assert len(by_name) == 5
    assert [s for _, s in by_name] == sorted((s for _, s in by_name), reverse=True)
    assert not {"Title 3", "Title 7", "Title 1"} & {t for t, _ in by_name}
    everything = m.recommend(["i3"], k=100, seen=True)
    assert len(everything) == N
    assert len(m.recommend(["i3"], k=100)) == N - 1
    assert m.recommend("i3") == m.recommend(["i3"])


def test_of_a_long_history_the_end_counts():
    m = model().bind(shop())
    history = [k % N for k in range(40)]
    assert m.recommend(history, seen=True) == m.recommend(history[-12:], seen=True)


def test_unknown_items_are_named_once_and_skipped():
    m = model().bind(shop())
    with pytest.warns(UserWarning) as caught:
        found = m.recommend(["i3", "i99", "nonsense", 10**9])
    assert len(caught) == 1
    for word in ("i99", "nonsense", "1000000000"):
        assert word in str(caught[0].message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert found == m.recommend(["i3"])


@pytest.mark.parametrize("history", [[], ["Titel 3"], [N], [True], [1.5], [None]])
def test_a_history_of_which_nothing_is_known_is_refused(history):
    with pytest.raises(DataError, match="known"):
        model().bind(shop()).recommend(history)


def test_bad_requests_are_refused():
    m = model()
    for k in (0, -1, 1.5, True):
        with pytest.raises(ParameterError, match="k must"):
            m.recommend([1], k=k)
    with pytest.raises(DataError, match="25 items"):
        m.bind(synthetic(20, 81, seed=0))
    with pytest.raises(DataError):
        m.recommend(["a name, but none was bound"])
    assert m.recommend([1], k=1)[0][0].isdigit()


# -- files -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("config", START, ids=str)
def test_files_keep_every_bit(config, tmp_path):
    m = model(config).bind(shop())
    with torch.no_grad():
        for p in m.parameters():
            p.add_(0.01)
    m.save(tmp_path / "m.safetensors")
    again = Recommender.load(tmp_path / "m.safetensors")
    assert again.config == m.config
    assert again.titles == m.titles
    assert not again.training
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in m.state_dict().items())
    assert again.recommend(["i3", "i4"]) == m.recommend(["i3", "i4"])


def test_files_of_another_kind_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint"):
        Recommender.load(tmp_path / "none")
    save_tensors(tmp_path / "other", {"x": torch.zeros(1)}, {"kind": "him"})
    with pytest.raises(CheckpointError, match="not a recommender"):
        Recommender.load(tmp_path / "other")
    save_tensors(
        tmp_path / "broken", {"x": torch.zeros(1)}, {"kind": "recommender", "config": {}, "n_items": 3}
    )
    with pytest.raises(CheckpointError, match="whole"):
        Recommender.load(tmp_path / "broken")


# -- bad input -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "changes",
    [
        {"encoder": "lstm"},
        {"head": "cosine"},
        {"start": "sphere"},
        {"user_radius": "fixed"},
        {"k_axis": "state1"},
        {"width": 0},
        {"layers": True},
        {"max_len": 2.0},
        {"dropout": 1.0},
        {"temperature": 0.0},
        {"radius_cap": -1.0},
        {"radius_penalty": float("nan")},
        {"c": 0.0},
        {"kappa": -1.0},
        {"encoder": "gru"},
        {"k_axis": "none", "kappa": 2.0},
        {"encoder": "sasrec", "k_axis": "none", "width": 15},
        {"head": "official"},
    ],
    ids=str,
)
def test_settings_without_sense_are_refused(changes):
    with pytest.raises((ParameterError, ManifoldError)):
        RecommenderConfig(**changes)


def test_the_papers_names_are_the_named_settings():
    for make, name in ((HMambaFull, "hmamba_full"), (HMambaHalf, "hmamba_half")):
        model = make(5, width=4, state=2, seed=3)
        assert model.config == named(name, width=4, state=2, seed=3)
        same = Recommender(model.config, 5).state_dict()
        assert all(torch.equal(value, same[key]) for key, value in model.state_dict().items())
    with pytest.raises(ParameterError, match="did you mean 'width'"):
        HMambaFull(5, widht=4)


def test_names_and_settings_that_do_not_exist_are_suggested():
    with pytest.raises(ParameterError, match="hmamba_full"):
        named("hmamba_ful")
    with pytest.raises(ParameterError, match="width"):
        named("sasrec", witdh=3)
    assert named("sasrec", width=32).width == 32


def test_histories_of_the_wrong_shape_or_with_strange_items_are_refused():
    m = model()
    items, mask = batch()
    for bad in ((items[0], mask[0]), (items, mask[:, :3]), (items, mask.long())):
        with pytest.raises(ParameterError, match="shape"):
            m.states(*bad)
    for value in (-1, N):
        with pytest.raises(ParameterError, match="from 0 to 24"):
            m.states(items.index_fill(1, torch.tensor([0]), value), mask)
    with pytest.raises(ParameterError, match="12 positions"):
        longer = torch.zeros(1, 13, dtype=torch.long)
        model(named("sasrec", **SMALL)).states(longer, torch.ones_like(longer, dtype=torch.bool))
    with pytest.raises(ParameterError, match="at least one"):
        Recommender(named("sasrec"), 0)
