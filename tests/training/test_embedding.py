import numpy as np
import pytest
import torch

import workbench.training.embedding as embedding_module
from workbench.data import trees, wordnet
from workbench.errors import CheckpointError, DataError, ParameterError
from workbench.evaluation import reconstruction
from workbench.manifolds import Euclidean, Lorentz, PoincareBall
from workbench.models import EmbeddingConfig
from workbench.training import EmbeddingTrainer, fit

TREE = trees.balanced(3, 4)
SHORT = EmbeddingConfig(dim=3, epochs=6, batch=16, burn_in=1)


def full_loss(points, manifold, pairs, weight):
    """The objective as it is written in the paper, by autograd over all pairs."""
    n = len(points)
    d = manifold.cdist(points, points, exact=True)
    above = torch.zeros(n, n, dtype=torch.bool)
    above[pairs[:, 1], pairs[:, 0]] = True
    away = torch.exp(-d).masked_fill(above | torch.eye(n, dtype=torch.bool), 0).sum(1) * weight
    e = torch.exp(-d[pairs[:, 1], pairs[:, 0]])
    return -(e / (e + away[pairs[:, 1]])).log().sum()


@pytest.mark.parametrize("manifold", [Euclidean(), PoincareBall(), Lorentz(2.0)], ids=repr)
def test_one_step_over_everything_is_riemannian_descent_on_the_papers_loss(manifold):
    config = EmbeddingConfig(
        dim=3, epochs=1, batch=1000, lr=1e-3, burn_in=0, hold=0.9, degree_power=0.0, max_step=100.0,
        negative_weight=0.7, init_radius=1.5,
    )  # fmt: skip
    trainer = EmbeddingTrainer(TREE, manifold, config)
    before = trainer.points
    pairs = torch.from_numpy(np.array(TREE.closure()))
    leaf = before.clone().requires_grad_()
    loss = full_loss(leaf, manifold, pairs, 0.7)
    loss.backward()
    mean = trainer.run_epoch()
    assert mean == pytest.approx(float(loss) / len(pairs), rel=1e-5)
    expected = manifold.expmap(before, -1e-3 * manifold.egrad2rgrad(before, leaf.grad))
    step = manifold.logmap(before, expected)
    torch.testing.assert_close(
        manifold.logmap(before, trainer.points), step, rtol=1e-3, atol=float(step.abs().max()) * 1e-3
    )


def test_ball_and_hyperboloid_are_one_space():
    ball = fit(TREE, PoincareBall(), SHORT).embedding
    lorentz = fit(TREE, Lorentz(), SHORT).embedding
    torch.testing.assert_close(lorentz.to(PoincareBall()).points, ball.points, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("objective", ["softmax", "cones"])
def test_interrupted_and_resumed_run_equals_an_uninterrupted_one(objective, tmp_path):
    config = EmbeddingConfig(dim=3, epochs=6, batch=16, candidates=40, objective=objective)
    whole = fit(TREE, PoincareBall(), config, evaluate_every=2)

    def interrupt(trainer, loss):
        if trainer.epoch == 3:
            raise KeyboardInterrupt

    path = tmp_path / "run.safetensors"
    with pytest.raises(KeyboardInterrupt):
        fit(TREE, PoincareBall(), config, evaluate_every=2, checkpoint=path, on_epoch=interrupt)
    resumed = fit(TREE, PoincareBall(), config, evaluate_every=2, checkpoint=path)
    assert torch.equal(resumed.embedding.points, whole.embedding.points)
    assert resumed.history == whole.history
    again = fit(TREE, PoincareBall(), config, evaluate_every=2, checkpoint=path)  # finished: nothing is done
    assert torch.equal(again.embedding.points, whole.embedding.points) and again.history == whole.history


def test_an_epoch_cut_short_leaves_the_last_whole_one(monkeypatch):
    trainer = EmbeddingTrainer(TREE, PoincareBall(), SHORT)
    trainer.run_epoch()
    before, calls = trainer.table.clone(), []

    def stop(*args):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return EmbeddingTrainer._softmax(trainer, *args)

    monkeypatch.setattr(trainer, "_softmax", stop)
    with pytest.raises(KeyboardInterrupt):
        trainer.run_epoch()
    assert torch.equal(trainer.table, before) and trainer.epoch == 1


def test_checkpoint_of_another_run_is_refused(tmp_path):
    path = tmp_path / "run.safetensors"
    fit(TREE, PoincareBall(), SHORT, checkpoint=path)
    with pytest.raises(CheckpointError, match="its manifold is"):
        fit(TREE, Lorentz(), SHORT, checkpoint=path)
    with pytest.raises(CheckpointError, match="its hierarchy is"):
        fit(trees.balanced(2, 4), PoincareBall(), SHORT, checkpoint=path)


def test_same_seed_same_table_other_seed_other_table():
    runs = [
        fit(TREE, PoincareBall(), EmbeddingConfig(dim=2, epochs=2, seed=s)).embedding.points
        for s in (0, 0, 1)
    ]
    assert torch.equal(runs[0], runs[1]) and not torch.equal(runs[0], runs[2])


def test_sampled_candidates_estimate_the_full_partition_function():
    """Strata: what is at hand counts once, the drawn nodes stand for all others."""
    trainer = EmbeddingTrainer(TREE, PoincareBall(), EmbeddingConfig(candidates=20, negative_weight=0.5))
    batch = trainer.closure.sources[:5]
    _, above = trainer.closure.positives(batch)
    others = trainer._candidates(torch.Generator().manual_seed(0))
    rows, weight = trainer._at_hand(batch, above, others)
    assert float(weight.sum()) == pytest.approx(0.5 * len(TREE))
    assert set(rows.tolist()) == {*batch.tolist(), *above.tolist(), *others.tolist()}


def test_early_stopping_by_target_and_by_patience():
    by_target = fit(
        TREE, PoincareBall(), EmbeddingConfig(dim=5, epochs=200), evaluate_every=5, target_map=0.5
    )
    assert by_target.embedding.about["epoch"] < 200
    stuck = EmbeddingConfig(dim=2, epochs=100, lr=1e-9)
    assert fit(TREE, PoincareBall(), stuck, evaluate_every=1, patience=3).embedding.about["epoch"] == 4


def test_history_ends_with_the_exact_measure():
    result = fit(TREE, PoincareBall(), SHORT)
    exact = reconstruction(result.embedding.points, PoincareBall(), TREE.closure())
    assert result.history[-1]["map"] == exact.map and result.history[-1]["exact"]


def test_cones_learn_who_is_above_whom():
    from workbench.models import cone_energy

    start = fit(TREE, PoincareBall(), EmbeddingConfig(dim=5, epochs=40)).embedding
    config = EmbeddingConfig(dim=5, epochs=30, lr=0.02, objective="cones", margin=0.1)
    e = fit(TREE, PoincareBall(), config, start=start).embedding
    pairs = TREE.closure()
    false = TREE.sample_negatives(pairs, k=1, seed=0).reshape(-1, 2)

    def energy(p):
        return cone_energy(e.manifold, e.points[p[:, 0]], e.points[p[:, 1]])

    assert energy(pairs).mean() < 0.2 * energy(false).mean()


def test_bad_starts_and_empty_hierarchies_are_refused():
    start = fit(TREE, PoincareBall(), SHORT).embedding
    with pytest.raises(ParameterError, match="start must be of this hierarchy"):
        fit(TREE, PoincareBall(), EmbeddingConfig(dim=2), start=start)
    with pytest.raises(DataError, match="nothing to learn"):
        fit(TREE, PoincareBall(), SHORT, closure=np.zeros((0, 2), dtype=np.int64))


@pytest.mark.slow
def test_wordnet_mammals_reach_the_quality_of_the_literature():
    h = wordnet.mammals()
    result = fit(h, PoincareBall(), EmbeddingConfig.for_size(len(h), dim=5))
    assert result.history[-1]["map"] >= 0.93 and result.history[-1]["mean_rank"] <= 1.3


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_takes_the_same_steps():
    config = EmbeddingConfig(dim=3, epochs=1, batch=1000, lr=1e-3, burn_in=0)
    cpu, gpu = (EmbeddingTrainer(TREE, PoincareBall(), config, device=d) for d in ("cpu", "cuda"))
    cpu.run_epoch(), gpu.run_epoch()
    torch.testing.assert_close(gpu.points, cpu.points, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    ("closure", "reason"),
    [
        ([[0, 999]], "numbered from 0 to"),
        ([[-1, 2]], "numbered from 0 to"),
        ([[1, 1]], "above itself"),
        ([[0.0, 1.0]], "whole numbers"),
        ([0, 1], "whole numbers"),
        (np.zeros((0, 2), int), "nothing to learn"),
    ],
)
def test_a_wrong_closure_is_refused_before_anything_runs(closure, reason, tmp_path):
    with pytest.raises(DataError, match=reason):
        fit(TREE, PoincareBall(), SHORT, closure=closure, checkpoint=tmp_path / "c")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "wrong",
    [dict(device="cud"), dict(checkpoint_every=0), dict(evaluate_every=-1), dict(patience=-1)],
    ids=str,
)
def test_a_wrong_argument_of_fit_is_refused_by_name(wrong):
    with pytest.raises(ParameterError, match=next(iter(wrong))):
        fit(TREE, PoincareBall(), SHORT, **wrong)


def test_a_run_cut_off_during_an_evaluation_measures_it_when_continued(tmp_path, monkeypatch):
    whole = fit(TREE, PoincareBall(), SHORT, evaluate_every=2)
    real, calls = embedding_module.reconstruction, []

    def cut_off(*args, **options):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*args, **options)

    monkeypatch.setattr(embedding_module, "reconstruction", cut_off)
    path = tmp_path / "checkpoint"
    with pytest.raises(KeyboardInterrupt):
        fit(TREE, PoincareBall(), SHORT, evaluate_every=2, checkpoint=path)
    continued = fit(TREE, PoincareBall(), SHORT, evaluate_every=2, checkpoint=path)
    assert continued.history == whole.history
    assert torch.equal(continued.embedding.points, whole.embedding.points)


def test_a_run_that_stopped_early_stays_finished_when_called_again(tmp_path):
    options = dict(evaluate_every=1, patience=1, checkpoint=tmp_path / "checkpoint")
    config = EmbeddingConfig(dim=2, epochs=50, lr=1e-9)
    first = fit(TREE, PoincareBall(), config, **options)
    assert first.history[-1]["epoch"] < 50
    assert fit(TREE, PoincareBall(), config, **options).history == first.history


def test_an_epoch_whose_loss_is_not_finite_leaves_the_table_of_the_last_good_one():
    trainer = EmbeddingTrainer(TREE, PoincareBall(), SHORT)
    trainer.run_epoch()
    before = trainer.points
    trainer._softmax = lambda *_: torch.tensor(float("nan"))
    with pytest.raises(ParameterError, match="lower lr"):
        trainer.run_epoch()
    assert trainer.epoch == 1 and torch.equal(trainer.points, before)


def test_a_run_over_other_pairs_is_not_continued(tmp_path):
    pairs = TREE.closure()
    fit(TREE, PoincareBall(), SHORT, closure=pairs[1:], checkpoint=tmp_path / "c")
    with pytest.raises(CheckpointError, match="its closure is"):
        fit(TREE, PoincareBall(), SHORT, closure=pairs[:-1], checkpoint=tmp_path / "c")
