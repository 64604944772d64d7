"""Fitting HiM: it learns what flat space cannot hold, resumes bit for bit, stops at NaN, and names bad input."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from workbench.data.tasks import multi_hop
from workbench.errors import CheckpointError, DataError, ParameterError
from workbench.evaluation.subsumption import evaluate
from workbench.files import load_tensors
from workbench.models.him import HiM, HiMConfig
from workbench.models.him_losses import him_loss, radius
from workbench.models.wordpiece import Tokenizer
from workbench.training import him
from workbench.training.him import HiMSettings, HiMTrainer, fit_him
from workbench.training.him_runs import word_tree
from workbench.training.names import Names

TASK = multi_hop(word_tree(3, 4), share=0.2, k=4)
TINY = dict(width=16, layers=1, state=4, headdim=16)
QUICK = HiMSettings(steps=30, positives=16, wrong=3, lr=1e-2, warmup=5)


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(TASK.texts, 200)


def small(**values):
    encoder = TINY | values.pop("encoder", {})
    return HiMConfig(**dict(dim=2, encoder=encoder) | values)


def trained(tokenizer, config=None, settings=QUICK, **more):
    return fit_him(TASK, config or small(), settings, tokenizer=tokenizer, report=1, **more)


def weights(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


# -- learning ---------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_tree_of_names_fits_into_the_hyperbolic_plane_and_not_into_the_flat_one():
    """341 made-up words: which word is above which, two steps and more apart, after training on single steps."""
    task = multi_hop(word_tree(4, 5), share=0.15)
    encoder = dict(width=32, layers=1, state=16, headdim=32)

    def f1(space, lr):
        fit = fit_him(task, HiMConfig(space=space, dim=2, encoder=encoder), HiMSettings(steps=400, lr=lr))
        found = evaluate(fit.points, fit.model.manifold, fit.calibration, task.test)
        return fit.calibration.f1, found.f1

    _, hyperbolic = f1("poincare", 1e-2)
    _, flat = max(f1("euclidean", lr) for lr in (3e-3, 1e-2))  # the better rate in validation
    assert hyperbolic > 0.72 and flat < 0.68 and hyperbolic - flat > 0.1


@pytest.mark.parametrize("space", ("poincare", "lorentz", "euclidean"))
@pytest.mark.parametrize("loss", ("triplet", "contrastive"))
def test_the_loss_falls_and_is_told_with_radius_and_curvature(space, loss, tokenizer):
    fit = trained(tokenizer, small(space=space), replace(QUICK, loss=loss, margin=1.0))
    first, last = fit.history[0], fit.history[-1]
    assert [row["step"] for row in fit.history] == list(range(1, 31))
    assert sum(row["loss"] for row in fit.history[-5:]) < 0.8 * sum(row["loss"] for row in fit.history[:5])
    assert first["kappa"] == pytest.approx(0.5) and first["c"] == (0 if space == "euclidean" else 1)
    assert all(math.isfinite(value) for value in last.values())
    assert 0 < last["radius"] < last["radius_max"]
    assert last["kappa"] != first["kappa"]


def test_the_two_charts_learn_the_same():
    """Poincaré ball and hyperboloid are one model: the same losses step by step, but for round-off."""
    ball, hyperboloid = (trained(None, small(space=s)).history for s in ("poincare", "lorentz"))
    for a, b in zip(ball[:10], hyperboloid[:10], strict=True):
        assert a == pytest.approx(b, rel=1e-3)


def test_the_fitted_model_is_calibrated_and_knows_the_names(tokenizer):
    fit = trained(tokenizer)
    assert not fit.model.training
    assert fit.model.calibration == (fit.calibration.lam, fit.calibration.threshold)
    assert set(fit.model.indexed.names) == set(TASK.texts)
    torch.testing.assert_close(fit.points, fit.model.encode(TASK.texts), rtol=1e-5, atol=1e-6)
    assert evaluate(fit.points, fit.model.manifold, fit.calibration, TASK.valid).f1 == fit.calibration.f1
    for _, margin in fit.model.hypernyms(TASK.texts[-1], 3):
        assert math.isfinite(margin)


def test_no_steps_calibrate_an_untrained_model(tokenizer):
    fit = trained(tokenizer, settings=HiMSettings(steps=0, wrong=2))
    assert fit.history == [] and 0 < fit.calibration.f1 <= 1
    torch.testing.assert_close(fit.points, HiM(small(), tokenizer).encode(TASK.texts), rtol=1e-5, atol=1e-6)


# -- a step -----------------------------------------------------------------------------------------------


def trainer(tokenizer, task=TASK, settings=QUICK, **values):
    return HiMTrainer(HiM(small(**values), tokenizer), task, settings, 0, torch.device("cpu"))


def test_a_step_has_the_loss_of_its_pairs_encoded_one_by_one(tokenizer):
    t = trainer(tokenizer)
    pairs, wrong = t.draw()
    loss, parts, _ = t.loss(pairs, wrong)
    points = t.model.encode(TASK.texts)
    want, each = him_loss(t.model.manifold, points[pairs[:, 1]], points[pairs[:, 0]], points[wrong])
    assert loss.item() == pytest.approx(want.item(), rel=1e-6)
    assert parts["centripetal"].item() == pytest.approx(each["centripetal"].item(), rel=1e-5)


def test_an_epoch_meets_every_pair_once_with_some_of_its_wrong_parents(tokenizer):
    t = trainer(tokenizer)
    offered = {tuple(p): set(w) for p, w in zip(TASK.train.tolist(), TASK.train_wrong.tolist(), strict=True)}
    for _ in range(2):
        met = []
        for _ in range(math.ceil(len(TASK.train) / 16)):
            pairs, wrong = t.draw()
            t.step += 1
            met += map(tuple, pairs.tolist())
            for pair, drawn in zip(pairs.tolist(), wrong.tolist(), strict=True):
                assert len(drawn) == 3 and set(drawn) <= offered[tuple(pair)]
        assert sorted(met) == sorted(offered)


def test_names_that_are_written_alike_are_encoded_once(tokenizer):
    model = HiM(small(), tokenizer)
    encoded = []
    model.encoder.register_forward_hook(lambda module, args, out: encoded.append(len(args[0])))
    names = Names(["ba", "de", "ba", "fo"], model, torch.device("cpu"))
    points, place = names.encode(torch.tensor([[0, 2], [3, 3]]))
    assert encoded == [2] and len(points) == 2
    assert place[0, 0] == place[0, 1] != place[1, 0]
    torch.testing.assert_close(points[place[1, 0]], model.encode("fo"), rtol=1e-6, atol=1e-7)


def test_weights_decay_only_where_they_multiply(tokenizer):
    t = trainer(tokenizer, settings=replace(QUICK, curvature_lr=0.25, weight_decay=0.1))
    of = {id(p): group for group in t.optimizer.param_groups for p in group["params"]}
    for name, p in t.parameters.items():
        assert of[id(p)]["weight_decay"] == (0.1 if p.ndim > 1 else 0), name
        assert of[id(p)]["share"] == (0.25 if name in ("log_gamma", "manifold.log_c") else 1), name


def test_the_rate_rises_and_then_falls_to_almost_nothing():
    s = HiMSettings(steps=100, warmup=10, lr=1.0)
    rates = [s.rate(step) for step in range(100)]
    assert rates[:11] == pytest.approx([0.1 * k for k in range(1, 11)] + [1.0])
    assert all(a > b for a, b in pairwise(rates[10:])) and 0 < rates[-1] < 0.02
    assert all(0 < HiMSettings(steps=n).rate(k) < 3.001e-3 for n in (1, 2, 5) for k in range(n))


def test_published_margins_are_those_of_the_release():
    s = HiMSettings.published(lr=1e-4)
    assert (s.margin, s.beta, s.centripetal, s.lr) == (0.255, 0.0051, "log", 1e-4)


# -- stopping and going on ----------------------------------------------------------------------------------


class Halt(Exception):
    pass


def halting(at):
    def halt(trainer, row):
        if row["step"] >= at:
            raise Halt

    return halt


@pytest.mark.parametrize("dropout", (0.0, 0.3))
def test_an_interrupted_run_ends_as_an_uninterrupted_one_bit_for_bit(dropout, tokenizer, tmp_path):
    config, path = small(encoder=dict(dropout=dropout)), tmp_path / "run"
    whole = trained(tokenizer, config)
    with pytest.raises(Halt):
        trained(tokenizer, config, checkpoint=path, on_report=halting(17))
    torch.rand(5)  # whatever else draws meanwhile
    resumed = trained(tokenizer, config, checkpoint=path, checkpoint_every=7)
    assert resumed.history == whole.history and resumed.calibration == whole.calibration
    for name, value in weights(whole.model).items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
    assert trained(tokenizer, config, checkpoint=path).history == whole.history  # nothing is left to do


def test_training_leaves_torchs_own_generator_alone(tokenizer):
    torch.manual_seed(5)
    want = torch.rand(3)
    torch.manual_seed(5)
    trained(tokenizer, small(encoder=dict(dropout=0.2)), replace(QUICK, steps=2))
    assert torch.equal(torch.rand(3), want)


def test_a_checkpoint_of_another_run_is_refused(tokenizer, tmp_path):
    path, settings = tmp_path / "run", replace(QUICK, steps=2)
    trained(tokenizer, settings=settings, checkpoint=path)
    for call, text in (
        (dict(settings=replace(settings, lr=1e-4)), "its settings is"),
        (dict(settings=settings, seed=1), "its settings is"),
        (dict(settings=settings, config=small(c=0.5)), "its config is"),
    ):
        with pytest.raises(CheckpointError, match=text):
            trained(tokenizer, checkpoint=path, **call)
    with pytest.raises(CheckpointError, match=r"its (config|tokenizer) is"):
        fit_him(TASK, small(), settings, tokenizer=Tokenizer.train(TASK.texts, 150), checkpoint=path)
    other = multi_hop(word_tree(3, 4), share=0.2, k=4, seed=1)
    with pytest.raises(CheckpointError, match="its data is"):
        fit_him(other, small(), settings, tokenizer=tokenizer, checkpoint=path)


@pytest.mark.parametrize("bad", (math.nan, math.inf))
def test_a_loss_that_is_not_finite_stops_with_the_step_and_keeps_the_last_good_checkpoint(
    bad, tokenizer, tmp_path, monkeypatch
):
    path, calls = tmp_path / "run", []

    def broken(*args, **options):
        loss, parts = him_loss(*args, **options)
        calls.append(loss)
        return (loss * bad if len(calls) == 13 else loss), parts

    whole = trained(tokenizer)
    monkeypatch.setattr(him, "him_loss", broken)
    with pytest.raises(ParameterError, match=r"not finite in step 13: .* as step 12 left it"):
        trained(tokenizer, checkpoint=path, checkpoint_every=100)
    monkeypatch.undo()
    resumed = trained(tokenizer, checkpoint=path)  # from step 12: all is as if it had not happened
    assert resumed.history == whole.history
    assert all(
        torch.equal(a, b)
        for a, b in zip(weights(whole.model).values(), weights(resumed.model).values(), strict=True)
    )


def test_weights_that_explode_stop_with_the_step_and_are_never_a_checkpoint(tokenizer, tmp_path):
    path, wild = tmp_path / "run", replace(QUICK, lr=1e30, clip=1e30, warmup=1)
    with pytest.raises(ParameterError, match=r"step \d+ .*lower lr \(now 1e\+30\)"):
        trained(tokenizer, settings=wild, checkpoint=path, checkpoint_every=1)
    if path.exists():
        tensors, about = load_tensors(path)
        assert about["step"] >= 1 and all(bool(torch.isfinite(t).all()) for t in tensors.values())


def test_a_gradient_that_is_not_finite_changes_nothing(tokenizer):
    t = trainer(tokenizer)
    t.run_step()
    before, loss = weights(t.model), t.loss
    t.loss = lambda *a: (lambda out: (out[0] + 0 * (out[2] * 0).sum().sqrt(), *out[1:]))(loss(*a))
    with pytest.raises(ParameterError, match=r"gradient nan is not finite in step 2"):
        t.run_step()
    assert all(torch.equal(before[name], value) for name, value in weights(t.model).items())
    t.loss = loss
    t.run_step()
    assert t.step == 2


def test_a_huge_rate_and_scale_leave_points_within_reach(tokenizer):
    fit = trained(tokenizer, small(gamma=50.0), replace(QUICK, lr=1.0))
    r = radius(fit.model.manifold, fit.points)
    assert torch.isfinite(fit.points).all() and r.max().item() <= 15.0 + 1e-9


# -- bad input ----------------------------------------------------------------------------------------------


def test_bad_settings_are_named():
    for name, value in dict(
        steps=-1,
        positives=0,
        wrong=0,
        warmup=1.5,
        lr=0,
        clip=0,
        margin=-1,
        beta=math.nan,
        weight_decay=math.inf,
    ).items():
        with pytest.raises(ParameterError, match=name):
            HiMSettings(**{name: value})


def test_bad_arguments_are_named(tokenizer):
    for more, text in (
        (dict(seed=-1), "seed"),
        (dict(checkpoint_every=0), "checkpoint_every"),
        (dict(settings=replace(QUICK, wrong=9)), "offers 4 wrong parents"),
        (dict(settings=replace(QUICK, steps=1, loss="hinge")), "loss must be one of"),
        (dict(settings=replace(QUICK, steps=1, centripetal="sqrt")), "centripetal must be one of"),
    ):
        with pytest.raises(ParameterError, match=text):
            trained(tokenizer, **more)
    with pytest.raises(DataError, match="no training pairs"):
        fit_him(replace(TASK, train=TASK.train[:0], train_wrong=TASK.train_wrong[:0]), small(), QUICK)
