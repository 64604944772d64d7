"""Fitting HRQ: it learns, resumes bit for bit, survives gradients that are not finite, and names bad input."""

import math

import numpy as np
import pytest
import torch

from workbench.data import Hierarchy, trees
from workbench.errors import CheckpointError, DataError, ParameterError
from workbench.models.hrq import HRQConfig, HRQTable
from workbench.training.embedding import Closure
from workbench.training.hrq import HRQTrainer, contrastive, fit_joint, fit_vae

pytestmark = pytest.mark.filterwarnings("ignore:.*levels of")
SPACES = ("euclidean", "poincare", "lorentz")
TREE = trees.balanced(3, 3)


def diffused(h=TREE, f=12, seed=0):
    """Features that walk down a tree."""
    rng, parent = np.random.default_rng(seed), h.spanning_tree()
    x = np.zeros((len(h), f))
    for i in h.topological:
        x[i] = (x[parent[i]] if parent[i] >= 0 else 0) + rng.normal(size=f)
    return x


def small(**settings):
    return HRQConfig(**dict(dim=3, levels=2, codebook_size=8, hidden=(32,), radius=None) | settings)


@pytest.mark.parametrize("space", SPACES)
def test_an_autoencoder_explains_most_of_the_variance_and_reports_its_own_error(space):
    x = diffused()
    fit = fit_vae(x, small(space=space), steps=80, lr=2e-2, batch=40, weight=0.1, report=30)
    again = fit.model.from_tokens(fit.model.tokenize(torch.from_numpy(x))).numpy()
    error = ((again - x) ** 2).mean() / ((x - x.mean(0)) ** 2).mean()
    assert error < 0.55
    assert [row["step"] for row in fit.history] == [1, 31, 61, 80]
    assert fit.history[-1]["error"] == pytest.approx(error, abs=0.12)
    assert (fit.skipped, fit.clipped) == (0, 0)


@pytest.mark.parametrize("own", (True, False))
def test_the_contrastive_loss_is_the_published_sum_over_nodes_that_are_not_above(own):
    h = TREE
    model = HRQTable(len(h), small(scale=0.7))
    pairs = torch.from_numpy(h.closure().copy())[5:12]
    others = torch.randint(len(h), (7, 9), generator=torch.Generator().manual_seed(0))
    others[0, 0] = pairs[0, 1]  # u itself, and below a node above it: neither counts
    others[1, 0] = pairs[1, 0]
    known = Closure(h.closure(), len(h), "cpu")
    loss, points = contrastive(model, model.points(), pairs, others, known, own)
    d = model.manifold.cdist(model.points(), model.points(), exact=True).tolist()
    each = []
    for (v, u), drawn in zip(pairs.tolist(), others.tolist(), strict=True):
        above = {*h.ancestors(u).tolist(), u}
        total = sum(math.exp(-d[u][k]) for k in drawn if k not in above)
        each.append(-math.log(math.exp(-d[u][v]) / (total + (1.0 if own else math.exp(-d[u][v])))))
    assert float(loss) == pytest.approx(sum(each) / len(each), rel=1e-9)
    assert points.shape == (14, 3)


@pytest.mark.parametrize("space", ("euclidean", "poincare"))
def test_joint_training_brings_nodes_near_their_ancestors_and_codes_near_the_nodes(space):
    config = small(space=space, dim=4, scale=0.3, commitment=0.02)
    fit = fit_joint(TREE, config, epochs=25, batch=60, self_negative=False, report=0)
    m, points = fit.model.manifold, fit.model.points().detach()
    d = m.cdist(points, points)
    pairs = torch.from_numpy(TREE.closure().copy())
    assert float(d[pairs[:, 1], pairs[:, 0]].mean()) < 0.75 * float(d.mean())
    error = m.dist(fit.model.from_tokens(fit.model.tokenize()), points).mean()
    assert float(error) < 0.6 * float(d.mean())


class Halt(Exception):
    pass


def halting(at):
    def halt(trainer, row):
        if trainer.step >= at:
            raise Halt

    return halt


@pytest.mark.parametrize("update", ("ema", "gradient"))
@pytest.mark.parametrize("kind", ("vae", "joint"))
def test_an_interrupted_run_ends_as_an_uninterrupted_one_bit_for_bit(kind, update, tmp_path):
    settings = dict(update=update, radius=0.6 if kind == "vae" else None, revive_below=0.5)

    def train(**more):
        if kind == "vae":
            return fit_vae(diffused(), small(**settings), steps=30, batch=24, report=1, **more)
        return fit_joint(TREE, small(**settings), epochs=10, batch=40, report=1, **more)

    whole = train()
    path = tmp_path / "run"
    with pytest.raises(Halt):
        train(checkpoint=path, on_report=halting(17))
    resumed = train(checkpoint=path, checkpoint_every=7)
    assert resumed.history == whole.history and resumed.history[0]["step"] == 1
    assert (resumed.skipped, resumed.clipped, resumed.revived) == (
        whole.skipped,
        whole.clipped,
        whole.revived,
    )
    for (name, a), b in zip(
        whole.model.state_dict().items(), resumed.model.state_dict().values(), strict=True
    ):
        assert torch.equal(a, b), name
    finished = train(checkpoint=path)  # nothing is left to do
    assert finished.history == whole.history


def test_a_checkpoint_of_another_run_or_kind_is_refused(tmp_path):
    path = tmp_path / "run"
    fit_vae(diffused(), small(), steps=2, checkpoint=path)
    for changed in (dict(lr=1e-4), dict(seed=1)):
        with pytest.raises(CheckpointError, match="its settings is"):
            fit_vae(diffused(), small(), **dict(steps=2, checkpoint=path) | changed)
    with pytest.raises(CheckpointError, match="its data is"):
        fit_vae(diffused(seed=1), small(), steps=2, checkpoint=path)
    with pytest.raises(CheckpointError, match="its config is"):
        fit_vae(diffused(), small(c=0.5), steps=2, checkpoint=path)


def trainer(losses):
    """A trainer whose step k multiplies its loss by losses[k]."""
    model = HRQTable(10, small())

    def loss(step):
        value = model.points().square().sum() * losses[step]
        return value, {}

    return HRQTrainer(model, loss, len(losses), 0.1, {})


def test_steps_without_a_finite_gradient_change_nothing_and_are_counted():
    t = trainer([1.0, math.nan, math.inf, 1.0])
    t.run_step()
    before = t.model.tangent.detach().clone()
    t.run_step(report=True)
    t.run_step()
    assert torch.equal(t.model.tangent, before) and t.skipped == 2
    assert t.history == [{"step": 2, "loss": None, "skipped": 1, "clipped": 0, "revived": 0}]
    t.run_step()
    assert not torch.equal(t.model.tangent, before) and torch.isfinite(t.model.tangent).all()


def test_a_training_that_has_no_finite_gradient_any_more_gives_up():
    t = trainer([math.nan] * 60)
    with pytest.raises(ParameterError, match="50 steps on end"):
        for _ in range(60):
            t.run_step()


def test_no_code_is_revived_in_the_last_tenth():
    fit = fit_vae(diffused(), small(revive_below=0.9, decay=0.5), steps=60, report=1)
    revived = [row["revived"] for row in fit.history]
    assert revived[53] > revived[0] and revived[54:] == [revived[54]] * 6
    assert fit.model.quantizer.revive_below == 0.9


def test_features_of_a_huge_scale_and_a_high_rate_leave_everything_finite():
    fit = fit_vae(diffused() * 1e6, small(scale=30.0, layers="hnnpp"), steps=20, lr=1.0, report=1)
    assert all(torch.isfinite(p).all() for p in fit.model.parameters())
    assert all(row["loss"] is not None for row in fit.history)


def test_bad_input_is_named():
    x = diffused()
    bad = x.copy()
    bad[2, 0] = np.nan
    for call, error, text in (
        (lambda: fit_vae(bad, small()), DataError, "first 2"),
        (lambda: fit_vae(x[:5], small()), DataError, "as many points"),
        (lambda: fit_vae(x, small(), steps=0), ParameterError, "steps"),
        (lambda: fit_vae(x, small(), lr=math.nan), ParameterError, "lr"),
        (
            lambda: fit_joint(Hierarchy.from_edges([], names=["a", "b"]), small()),
            DataError,
            "nothing to learn",
        ),
        (lambda: fit_joint(TREE, small(), negatives=0), ParameterError, "negatives"),
        (lambda: fit_joint(TREE, small(codebook_size=64)), DataError, "as many points"),
    ):
        with pytest.raises(error, match=text):
            call()
