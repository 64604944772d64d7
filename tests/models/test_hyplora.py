"""Adapters on a model: where they go, that they come off, their files and merging."""

import copy
import json
import math

import pytest
import torch
from torch import nn

from workbench.errors import CheckpointError, ParameterError
from workbench.models import hyplora
from workbench.models.hyplora import AdapterConfig, Gate, HypLoRALinear
from workbench.nn.mamba import Mamba

D = 12


class Conv1D(nn.Module):
    """Like transformers': y = xW + b."""

    def __init__(self, out, d):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(d, out) / 3), nn.Parameter(torch.randn(out))

    def forward(self, x):
        return x @ self.weight + self.bias


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.q_proj, self.v_proj = nn.Linear(D, D), nn.Linear(D, D, bias=False)
        self.norm, self.mix = nn.LayerNorm(D), Conv1D(D, D)

    def forward(self, x):
        return x + self.mix(torch.tanh(self.q_proj(self.norm(x))) * self.v_proj(x))


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers, self.head = nn.ModuleList(Block() for _ in range(2)), nn.Linear(D, 4)

    def get_output_embeddings(self):
        return self.head

    def forward(self, x):
        for block in self.layers:
            x = block(x)
        return self.head(x)


def model(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Model().eval()


def trained(config, seed=0):
    m = model()
    for i, each in enumerate(hyplora.inject(m, config, seed=seed).values()):
        B = each.hyplora_B if config.method == "hyplora" else each.lora_B
        with torch.no_grad():
            B.normal_(std=0.5, generator=torch.Generator().manual_seed(i))
    return m


X = torch.randn(3, 5, D, generator=torch.Generator().manual_seed(1))
METHODS = ["hyplora", "lora", "dora"]


@pytest.mark.parametrize("method", METHODS)
def test_adapters_go_on_change_nothing_and_come_off(method):
    m, y = model(), model()(X)
    m.head.requires_grad_(False)
    before = {n: p.requires_grad for n, p in m.named_parameters()}
    layers = hyplora.inject(m, AdapterConfig(method=method))
    assert sorted(layers) == [f"layers.{i}.{n}" for i in (0, 1) for n in ("mix", "q_proj", "v_proj")]
    assert hyplora.adapters(m) == layers
    assert torch.equal(m(X), y)
    assert {n for n, p in m.named_parameters() if p.requires_grad} == {
        n for n, _ in m.named_parameters() if "lora_" in n
    }
    assert not any(each.training for each in layers.values())
    hyplora.remove(m)
    assert {n: p.requires_grad for n, p in m.named_parameters()} == before
    assert not hyplora.adapters(m)


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (["q_proj"], ["layers.0.q_proj", "layers.1.q_proj"]),
        (["layers.1.v_proj", "head"], ["head", "layers.1.v_proj"]),
        (r"layers\.0\.(q|v)_proj", ["layers.0.q_proj", "layers.0.v_proj"]),
    ],
)
def test_targets_are_ends_of_names_or_a_regular_expression(wanted, found):
    assert sorted(hyplora.inject(model(), AdapterConfig(target_modules=wanted))) == found


def test_excluded_layers_stay_as_they_are():
    layers = hyplora.inject(model(), AdapterConfig(exclude_modules=["mix", "layers.0.q_proj"]))
    assert sorted(layers) == ["layers.0.v_proj", "layers.1.q_proj", "layers.1.v_proj"]


def test_training_moves_the_adapter_and_nothing_else():
    m = model()
    hyplora.inject(m, AdapterConfig(target_modules=["q_proj"], lora_dropout=0.1))
    start = copy.deepcopy(m.state_dict())
    optimiser = torch.optim.Adam([p for p in m.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for _ in range(20):
        loss = (m.train()(X) - 1).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    moved = {n for n, v in m.state_dict().items() if not torch.equal(v, start[n])}
    assert moved == {n for n in start if "hyplora" in n}


def test_a_frozen_k_stays():
    m = model()
    hyplora.inject(m, AdapterConfig(learn_K=False))
    assert not any(p.requires_grad for n, p in m.named_parameters() if n.endswith("hyplora_k"))


def test_disabled_is_the_base_for_as_long_as_it_lasts():
    m = trained(AdapterConfig())
    y = m(X)
    with hyplora.disabled(m):
        assert torch.equal(m(X), model()(X))
    assert torch.equal(m(X), y)


def test_the_seed_is_that_of_the_adapter():
    a, b, c = (trained(AdapterConfig(), seed=s) for s in (1, 1, 2))
    assert torch.equal(a(X), b(X))
    assert not torch.equal(a(X), c(X))


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (["q_porj"], r"no module .* 'q_porj'; did you mean 'q_proj'\?"),
        (["layers"], "'layers' is ModuleList"),
        (["norm"], "is LayerNorm"),
        ("nothing.*", "matches no linear layer; there are head, mix, q_proj, v_proj"),
    ],
)
def test_targets_that_cannot_be_are_refused_and_nothing_changes(wanted, words):
    m = model()
    with pytest.raises(ParameterError, match=words):
        hyplora.inject(m, AdapterConfig(target_modules=wanted))
    assert not hyplora.adapters(m)
    assert all(p.requires_grad for p in m.parameters())


def test_layers_whose_weights_are_read_elsewhere_are_refused():
    m = nn.Sequential(nn.Linear(8, 8), nn.MultiheadAttention(8, 2), nn.TransformerEncoderLayer(8, 2, 16))
    assert list(hyplora.inject(m, AdapterConfig())) == ["0"]
    hyplora.remove(m)
    with pytest.raises(ParameterError, match=r"'1\.out_proj' cannot be adapted: MultiheadAttention hands"):
        hyplora.inject(m, AdapterConfig(target_modules=["out_proj"]))
    with pytest.raises(AttributeError, match="HypLoRALinear has no weight: a module that reads it"):
        HypLoRALinear(nn.Linear(3, 3), 2, 4).weight  # noqa: B018


def test_mambas_projections_are_adapted_but_for_the_one_that_is_not_called():
    m, x = Mamba(8), torch.randn(2, 5, 8)
    y = m(x)
    layers = hyplora.inject(m, AdapterConfig())
    assert sorted(layers) == ["in_proj", "out_proj", "x_proj"]
    assert torch.equal(m(x), y)
    m(x).sum().backward()
    assert all(each.hyplora_B.grad.any() for each in layers.values())
    hyplora.remove(m)
    with pytest.raises(ParameterError, match="'dt_proj' cannot be adapted"):
        hyplora.inject(m, AdapterConfig(target_modules=["dt_proj"]))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"r": 0}, "rank r must be .* at least 1, but came as 0"),
        ({"r": 2.5}, "rank r must be a whole number"),
        ({"lora_alpha": 0}, "alpha must be positive"),
        ({"lora_dropout": 1.0}, "dropout must be"),
        ({"K": 0.0}, "K must be positive and finite, but came as 0.0"),
        ({"K": -1}, "K must be positive"),
        ({"K": math.nan}, "K must be positive"),
        ({"variant": "offical"}, "did you mean 'official'"),
        ({"s": "sqrt"}, "s must be"),
        ({"variant": "literal", "s": 3.0}, "literal has s = 1"),
        ({"t_max": 400.0}, "at most 300"),
        ({"method": "dorra"}, "did you mean 'dora'"),
        ({"target_modules": []}, "target_modules must name"),
    ],
)
def test_settings_that_make_no_sense_are_refused(options, words):
    with pytest.raises(ParameterError, match=words):
        AdapterConfig(**options)


def test_a_second_adapter_and_other_layers_are_refused():
    m = trained(AdapterConfig())
    with pytest.raises(ParameterError, match="no adapters yet"):
        hyplora.inject(m, AdapterConfig())
    with pytest.raises(ParameterError, match=r"nn\.Linear or Conv1D, but came as LayerNorm"):
        HypLoRALinear(nn.LayerNorm(3), 2, 4)
    with pytest.raises(ParameterError, match="t_max must be positive"):
        Gate(t_max=0)


# -- files -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("variant", ["exp", "official"])
def test_what_is_saved_comes_back_to_the_last_bit(method, variant, tmp_path):
    m = trained(AdapterConfig(method=method, variant=variant, r=4, K=0.5, use_rslora=True))
    hyplora.save(m, tmp_path / "adapter")
    assert sorted(p.name for p in (tmp_path / "adapter").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    other = model()
    assert sorted(hyplora.load(other, tmp_path / "adapter")) == sorted(hyplora.adapters(m))
    assert torch.equal(other(X), m(X))


@pytest.fixture
def saved(tmp_path):
    hyplora.save(trained(AdapterConfig(r=4)), tmp_path)
    return tmp_path


def edit(folder, **changes):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def refused(m, folder, words):
    with pytest.raises(CheckpointError, match=words):
        hyplora.load(m, folder)
    assert not hyplora.adapters(m)
    assert all(p.requires_grad for p in m.parameters())


def test_an_adapter_of_another_base_is_refused(saved):
    refused(model(seed=1), saved, "another base model: weights of 'layers.0.mix' are not the same")
    small = nn.Module()
    small.layers = nn.ModuleList([Block()])
    refused(small, saved, "it has no linear layer 'layers.1.mix'; did you mean 'layers.0.mix'")
    hyplora.load(model().to(torch.bfloat16), saved)  # the same base, rounded


def test_files_that_do_not_fit_are_refused(saved, tmp_path):
    edit(saved, r=5)
    refused(model(), saved, r"must have shape \(\d+, 5\)|must have shape \(5, 12\)")
    edit(saved, r=4, s="learnable")
    refused(model(), saved, "lacks 'layers.0.mix.hyplora_s'")
    edit(saved, s="sqrt_d", K=-1)
    refused(model(), saved, "does not describe an adapter: K must be positive")
    edit(saved, K=1.0, rank_pattern={"q_proj": 2})
    refused(model(), saved, "asks for rank_pattern, which only peft can do")
    edit(saved, rank_pattern={}, peft_type="IA3")
    refused(model(), saved, "must be HYPLORA or LORA, but .* says 'IA3'")
    (saved / "adapter_config.json").write_text("{")
    refused(model(), saved, "not a readable adapter description")
    refused(model(), tmp_path / "nowhere", "not a readable adapter description")


def test_a_damaged_file_of_tensors_is_refused(saved):
    path = saved / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    refused(model(), saved, "not a readable adapter")


def test_there_must_be_something_to_save(tmp_path):
    with pytest.raises(ParameterError, match="no adapters to save"):
        hyplora.save(model(), tmp_path / "none")
    assert not (tmp_path / "none").exists()


# -- merging -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("method", ["lora", "dora"])
def test_lora_and_dora_merge_exactly(method):
    m = trained(AdapterConfig(method=method))
    y = m(X)
    hyplora.merge(m)
    assert not hyplora.adapters(m)
    assert torch.allclose(m(X), y, atol=1e-5)


def test_a_merge_of_hyplora_is_refused_with_the_reason():
    m = trained(AdapterConfig())
    y = m(X)
    with pytest.raises(ParameterError, match="a number that depends on the token; merge_approx"):
        hyplora.merge(m)
    assert torch.equal(m(X), y)


def test_the_approximate_merge_returns_its_own_error():
    m = trained(AdapterConfig(target_modules=["layers.0.q_proj"], variant="literal"))
    each = hyplora.adapters(m)["layers.0.q_proj"]
    h = m.layers[0].norm(X) * torch.linspace(0.1, 3, 5)[:, None]
    update = each.update(h)
    errors = hyplora.merge_approx(m, [h[:1], h[1:]], run=lambda net, h: net.layers[0].q_proj(h))
    merged = m.layers[0].q_proj(h) - model().layers[0].q_proj(h)
    measured = ((merged - update).norm() / update.norm()).item()
    assert measured > 0.05
    assert math.isclose(errors["layers.0.q_proj"], measured, rel_tol=1e-3)


def test_the_approximate_merge_is_exact_where_the_gate_is_constant():
    m = trained(AdapterConfig(K=1e10))
    y = m(X)
    errors = hyplora.merge_approx(m, [X])
    assert max(errors.values()) < 1e-5
    assert torch.allclose(m(X), y, atol=1e-5)


def test_an_approximate_merge_without_tokens_changes_nothing():
    m = trained(AdapterConfig())
    y = m(X)
    with pytest.raises(ParameterError, match="batches must reach every adapter"):
        hyplora.merge_approx(m, [])
    with pytest.raises(ParameterError, match="merge_approx is for HypLoRA"):
        hyplora.merge_approx(model(), [X])
    assert torch.equal(m(X), y)
