import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.data import interactions
from workbench.data.interactions import Interactions
from workbench.errors import CheckpointError, DataError, ParameterError
from workbench.evaluation.recommendation import popularity_ranks, report
from workbench.models.recommender import NAMED, Recommender, named
from workbench.training import recommender as training
from workbench.training.recommender import (
    RecommenderSettings,
    RecommenderTrainer,
    fit_recommender,
    ranks_of,
)
from workbench.training.recommender_batches import Batches, Draws

CPU = torch.device("cpu")
DATA = interactions.synthetic(n_users=60, n_items=81, branching=3, depth=3, length=10, strength=0.9)
SMALL = {"width": 8, "max_len": 12}
SHORT = RecommenderSettings(epochs=3, batch=16, lr=1e-2)


def small(name="hmamba_full", **changes):
    extra = {} if name in ("sasrec", "gru4rec") else {"state": 4}
    return named(name, **SMALL | extra | changes)


def trainer(config=None, data=DATA, seed=0, **changes):
    config = config or small()
    settings = dataclasses.replace(SHORT, **changes)
    return RecommenderTrainer(Recommender(config, data.n_items), data, settings, seed, CPU)


def all_different(lengths):
    """Every event an item of its own, so that an item tells where it stands."""
    users = np.repeat(np.arange(len(lengths)), lengths)
    return Interactions.from_events(users, np.arange(len(users)))


def rows(batches, seed=0):
    """(items asked about before, target, user) of everything an epoch asks."""
    for start, size in batches.epoch(seed):
        b = batches.make(start, size)
        at = b.asked.nonzero().tolist()
        for (i, t), target, user in zip(at, b.targets.tolist(), b.users.tolist(), strict=True):
            assert b.mask[i, : t + 1].all()
            yield b.items[i, : t + 1].tolist(), target, user


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(v, b[k]) for k, v in a.items())


def timeless(history):
    return [{k: v for k, v in row.items() if k != "seconds"} for row in history]


# -- batches -----------------------------------------------------------------------------------------------

LENGTHS = st.lists(st.integers(1, 30), min_size=1, max_size=12).filter(lambda n: max(n) >= 4)
CUTS = {"max_len": st.integers(1, 9), "batch": st.integers(1, 5), "seed": st.integers(0, 9)}


@given(lengths=LENGTHS, **CUTS)
@settings(max_examples=60, deadline=None)
def test_an_epoch_asks_for_every_training_item_but_the_first_once(lengths, max_len, batch, seed):
    data = all_different(lengths)
    asked = list(rows(Batches(data, max_len, "dense", "all", batch, CPU), seed))
    assert sorted(t for _, t, _ in asked) == sorted(x for s in data.train for x in s[1:].tolist())
    for history, target, user in asked:
        own = data.train[user].tolist()
        end = own.index(target)
        assert history == own[end - len(history) : end] and 1 <= len(history) <= max_len


@given(lengths=LENGTHS, **CUTS)
@settings(max_examples=60, deadline=None)
def test_prefixes_are_all_that_came_before_and_the_last_piece_is_the_end_of_the_sequence(
    lengths, max_len, batch, seed
):
    data = all_different(lengths)
    expected = [
        (s[max(0, t - max_len) : t].tolist(), int(s[t]), u)
        for u, s in enumerate(data.train)
        for t in range(1, len(s))
    ]
    assert sorted(rows(Batches(data, max_len, "prefix", "all", batch, CPU), seed)) == sorted(expected)
    last = [x for s in data.train for x in s[1:][-max_len:].tolist()]
    assert sorted(t for _, t, _ in rows(Batches(data, max_len, "dense", "last", batch, CPU), seed)) == sorted(
        last
    )


def test_epochs_differ_repeat_by_seed_and_hold_few_paddings():
    rng = np.random.default_rng(0)
    data = all_different(rng.geometric(0.1, size=4000) + 4)
    batches = Batches(data, 50, "dense", "all", 32, CPU)
    first, again, other = (batches.epoch(seed) for seed in (1, 1, 2))
    assert all((a[0] == b[0]).all() for a, b in zip(first, again, strict=True))
    assert any(len(a[0]) != len(b[0]) or (a[0] != b[0]).any() for a, b in zip(first, other, strict=False))
    masks = [batches.make(*b).mask for b in first]
    assert sum(m.sum() for m in masks) > 0.85 * sum(m.numel() for m in masks)
    widths = [m.shape[1] for m in masks]
    assert widths != sorted(widths)  # long and short batches alternate


def test_items_to_compete_are_drawn_as_often_as_said_and_not_from_the_users_own():
    torch.manual_seed(0)
    draws = Draws(DATA, 50_000, 0.7, CPU)
    drawn, log_expected = draws.shared()
    found = drawn.bincount(minlength=DATA.n_items).double()
    expected = torch.zeros(DATA.n_items, dtype=torch.float64)
    expected[drawn] = log_expected.exp().double()
    assert (found - expected).abs().max() < 5 * expected.max().sqrt()
    weights = (1.0 + DATA.counts) ** 0.7
    assert torch.allclose(expected, torch.from_numpy(weights / weights.sum() * 50_000), rtol=1e-5)
    users = torch.arange(60).repeat(50)
    own = [set(s.tolist()) for s in DATA.train]
    assert not any(i in own[u] for u, i in zip(users.tolist(), draws.unseen(users).tolist(), strict=True))


# -- what a run is -----------------------------------------------------------------------------------------


def test_prefix_and_dense_training_ask_the_same_question():
    losses = {}
    for mode in ("dense", "prefix"):
        t = trainer(small(dropout=0.0, max_len=20), mode=mode, batch=40)
        t.model.eval()
        parts = [t.batches.make(*b) for b in t.plan]
        with torch.no_grad():
            losses[mode] = sum(float(t.loss(b)) * len(b.targets) for b in parts) / sum(
                len(b.targets) for b in parts
            )
    assert losses["dense"] == pytest.approx(losses["prefix"], rel=1e-6)


@pytest.mark.parametrize("name", NAMED)
def test_every_model_learns_what_follows_what(name):
    fit = fit_recommender(DATA, small(name, width=16), RecommenderSettings(epochs=12, batch=8, lr=1e-2))
    popular = report(popularity_ranks(DATA, DATA.valid)).ndcg[10]
    assert max(row["ndcg@10"] for row in fit.history) > 1.5 * popular
    best = next(row for row in fit.history if row["epoch"] == fit.best_epoch)
    assert best["ndcg@10"] == max(row["ndcg@10"] for row in fit.history)
    assert (
        report(ranks_of(fit.model, DATA.valid).masked).ndcg[10] == best["ndcg@10"]
    )  # the best is what is kept
    assert fit.history[-1]["loss"] < fit.history[0]["loss"] and not fit.model.training
    assert len(fit.model.recommend([DATA.titles[0], DATA.titles[1]], k=3)) == 3


@pytest.mark.parametrize("loss", training.CHOICES["loss"])
@pytest.mark.parametrize("optimizer", training.CHOICES["optimizer"])
def test_every_loss_goes_down_under_either_optimiser(loss, optimizer):
    some = RecommenderSettings(epochs=8, batch=16, lr=2e-2, loss=loss, optimizer=optimizer, negatives=60)
    fit = fit_recommender(DATA, small(learn_c=True), some, report=1)
    assert fit.history[-1]["loss"] < fit.history[0]["loss"]
    assert fit.model.items.place is None  # tangent vectors again, as in files
    assert all(math.isfinite(v) for row in fit.history for v in row.values())


@pytest.mark.parametrize(
    "changes",
    [{}, {"optimizer": "riemannian"}, {"loss": "sampled"}, {"mode": "prefix", "loss": "bce", "batch": 128}],
)
def test_an_interrupted_run_goes_on_to_the_same_bits_wherever_it_stopped(tmp_path, monkeypatch, changes):
    some = dataclasses.replace(SHORT, **changes)
    config = small("sasrec" if some.mode == "prefix" else "hmamba_full")
    whole = fit_recommender(DATA, config, some)
    step = RecommenderTrainer.run_step
    for number, stop in enumerate([(0, 1), (1, 0), (2, 3)]):
        path = tmp_path / f"{number}.safetensors"

        def interrupted(self, stop=stop):
            if (self.epoch, self.step) == stop:
                raise KeyboardInterrupt
            step(self)

        monkeypatch.setattr(RecommenderTrainer, "run_step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fit_recommender(DATA, config, some, checkpoint=path)
        monkeypatch.setattr(RecommenderTrainer, "run_step", step)
        resumed = fit_recommender(DATA, config, some, checkpoint=path)
        assert timeless(resumed.history) == timeless(whole.history)
        assert same(resumed.model.state_dict(), whole.model.state_dict())
    again = fit_recommender(DATA, config, some, checkpoint=path)  # finished: nothing is done
    assert again.history == resumed.history and same(again.model.state_dict(), whole.model.state_dict())


def test_an_interrupt_while_validating_or_amid_an_update_loses_no_row_and_no_bit(tmp_path, monkeypatch):
    whole = fit_recommender(DATA, small("gru4rec"), SHORT)
    for number, (owner, name) in enumerate(
        [(RecommenderTrainer, "validate"), (torch.optim.AdamW, "step"), (torch.optim.AdamW, "zero_grad")]
    ):
        path, calls, original = tmp_path / f"{number}.safetensors", [], getattr(owner, name)

        def interrupted(self, *args, calls=calls, original=original, **named):
            calls.append(0)
            if len(calls) == 2:
                raise KeyboardInterrupt
            return original(self, *args, **named)

        monkeypatch.setattr(owner, name, interrupted)
        with pytest.raises(KeyboardInterrupt):
            fit_recommender(DATA, small("gru4rec"), SHORT, checkpoint=path)
        monkeypatch.undo()
        resumed = fit_recommender(DATA, small("gru4rec"), SHORT, checkpoint=path)
        assert timeless(resumed.history) == timeless(whole.history)
        assert same(resumed.model.state_dict(), whole.model.state_dict())


def test_a_finished_run_can_be_continued_for_more_epochs(tmp_path):
    path = tmp_path / "run.safetensors"
    fit_recommender(DATA, small(), dataclasses.replace(SHORT, epochs=1), checkpoint=path)
    longer = fit_recommender(DATA, small(), SHORT, checkpoint=path)
    whole = fit_recommender(DATA, small(), SHORT)
    assert timeless(longer.history) == timeless(whole.history)
    assert same(longer.model.state_dict(), whole.model.state_dict())


def test_checkpoints_of_other_runs_and_damaged_ones_are_refused(tmp_path):
    path = tmp_path / "run.safetensors"
    fit_recommender(DATA, small(), dataclasses.replace(SHORT, epochs=1), checkpoint=path)
    for other in (
        {"seed": 1},
        {"settings": dataclasses.replace(SHORT, lr=1e-3)},
        {"config": small(kappa=2.0)},
        {"data": DATA.with_rolling(2)},
    ):
        call = {"data": DATA, "config": small(), "settings": SHORT, "checkpoint": path} | other
        with pytest.raises(CheckpointError, match="cannot be continued"):
            fit_recommender(**call)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError):
        fit_recommender(DATA, small(), SHORT, checkpoint=path)


def test_a_loss_that_is_not_finite_stops_with_its_step_and_leaves_the_step_before(tmp_path, monkeypatch):
    path, loss, seen = tmp_path / "run.safetensors", RecommenderTrainer.loss, {}

    def poisoned(self, batch):
        if (self.epoch, self.step) == (1, 2):
            seen.update({k: v.clone() for k, v in self.model.state_dict().items()})
            return loss(self, batch) * math.nan
        return loss(self, batch)

    monkeypatch.setattr(RecommenderTrainer, "loss", poisoned)
    with pytest.raises(ParameterError, match="step 3 of epoch 2"):
        fit_recommender(DATA, small(), SHORT, checkpoint=path)
    monkeypatch.setattr(RecommenderTrainer, "loss", loss)
    resumed = trainer(small())
    resumed.resume(path)
    assert (resumed.epoch, resumed.step) == (1, 2) and same(resumed.model.state_dict(), seen)


def test_runs_repeat_by_seed_and_leave_the_global_generator_alone():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    a, b, other = (
        fit_recommender(DATA, small("gru4rec"), SHORT, seed=seed).model.state_dict() for seed in (0, 0, 1)
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert same(a, b) and not same(a, other)


def test_decay_reaches_matrices_only_and_curvatures_have_their_own_rate():
    for optimizer in training.CHOICES["optimizer"]:
        t = trainer(small(learn_c=True), weight_decay=0.5, curvature_lr=0.25, optimizer=optimizer)
        name = {p: n for n, p in t.model.named_parameters()}
        groups = [{name[p] for p in g["params"]} for g in t.optimizer.param_groups]
        assert sorted(n for g in groups for n in g) == sorted(name.values())
        matrices, others, curvatures = groups
        assert len(curvatures) == 2 and all(n.endswith("log_c") for n in curvatures)
        assert {"bias", "head.log_temperature"} <= others and any(n.endswith("A_log") for n in others)
        assert ("items.place" in others) == (optimizer == "riemannian")
        assert all(t.model.get_parameter(n).ndim > 1 for n in matrices)
        assert [g["weight_decay"] for g in t.optimizer.param_groups] == [0.5, 0.0, 0.0]
        assert t.optimizer.param_groups[2]["lr"] == 0.25 * SHORT.lr


def test_a_riemannian_step_moves_points_that_stay_on_the_manifold():
    t = trainer(optimizer="riemannian")
    before = t.model.items.place.detach().clone()
    t.run_step()
    place = t.model.items.place
    assert not torch.equal(place, before)
    assert torch.allclose(place, t.model.manifold.projx(place), atol=1e-6)


def test_patience_budget_and_reports_end_and_thin_out_a_run(monkeypatch):
    worse = iter(np.linspace(1, 0, 50))
    monkeypatch.setattr(RecommenderTrainer, "validate", lambda self: {"ndcg@10": float(next(worse))})
    fit = fit_recommender(DATA, small("gru4rec"), dataclasses.replace(SHORT, epochs=40, patience=3))
    assert fit.best_epoch == 1 and fit.epochs == 4
    fit = fit_recommender(DATA, small("gru4rec"), dataclasses.replace(SHORT, epochs=40, budget=1e-9))
    assert fit.epochs == 1
    seen = []
    some = dataclasses.replace(SHORT, epochs=5)
    fit = fit_recommender(
        DATA, small("gru4rec"), some, report=2, on_report=lambda t, row: seen.append(row["epoch"])
    )
    assert seen == [2, 4, 5] == [row["epoch"] for row in fit.history]
    fit = fit_recommender(DATA, small("gru4rec"), some, report=0)
    assert fit.history == [] and fit.best_epoch == 5


@pytest.mark.parametrize(
    "wrong",
    [
        {"loss": "sofmax"}, {"mode": "x"}, {"pieces": "x"}, {"optimizer": "sgd"}, {"epochs": -1}, {"batch": 0},
        {"batch": True}, {"lr": 0}, {"lr": math.nan}, {"clip": math.inf}, {"calibration": 2.0}, {"negatives": 0},
    ],
)  # fmt: skip
def test_settings_that_make_no_sense_are_named(wrong):
    with pytest.raises(ParameterError, match=next(iter(wrong))):
        RecommenderSettings(**wrong)


def test_data_without_targets_and_wrong_arguments_are_named():
    short = Interactions.from_events([0, 0, 1], [0, 1, 0])
    with pytest.raises(DataError, match="fewer than the 3"):
        fit_recommender(short, small())
    with pytest.raises(DataError, match="two items to train with"):
        Batches(all_different([3, 3]), 5, "dense", "all", 4, CPU)
    with pytest.raises(ParameterError, match="report"):
        fit_recommender(DATA, small(), report=-1)
    with pytest.raises(ParameterError, match="did you mean"):
        fit_recommender(DATA, "hmamba_ful")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("loss", training.CHOICES["loss"])
def test_a_gpu_reaches_what_the_cpu_reaches(loss):
    some = dataclasses.replace(SHORT, loss=loss, negatives=20)
    cpu, gpu = (fit_recommender(DATA, small(dropout=0.0), some, device=d) for d in ("cpu", "cuda"))
    assert gpu.history[-1]["loss"] == pytest.approx(cpu.history[-1]["loss"], rel=1e-2)
