"""HypLoRA in Hugging Face's peft, on a tiny random Llama: what its users do, and what must be refused."""

import json
import subprocess
import sys

import pytest
import torch

pytest.importorskip("peft", reason="needs the extra peft")
pytest.importorskip("transformers", reason="needs the extra peft")

from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from workbench.errors import CheckpointError, ParameterError
from workbench.models import hyplora
from workbench.models.hyplora_peft import HypLoRAConfig, HypLoRAPeftLinear, merge_approx

IDS = torch.randint(2, 50, (2, 7), generator=torch.Generator().manual_seed(0))


def llama(seed=0, hidden=32, **options):
    sizes = {"vocab_size": 50, "hidden_size": hidden, "intermediate_size": 48, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LlamaForCausalLM(LlamaConfig(**sizes, **heads, pad_token_id=0, **options)).eval()


def grow(model, name="default", seed=0):
    """B away from zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for key, p in model.named_parameters():
            if "lora_B" in key and key.removesuffix(".weight").endswith(name):
                p.copy_(0.3 * torch.randn(p.shape, generator=generator))
    return model


def adapted(base=None, **options):
    options = {"r": 4, "target_modules": ["q_proj", "v_proj", "down_proj"], "K": 0.5} | options
    base = base or llama()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return grow(get_peft_model(base, HypLoRAConfig(**options)).eval())


def logits(model):
    with torch.no_grad():
        return model(input_ids=IDS).logits


def layers_of(model):
    return [m for m in model.modules() if isinstance(m, HypLoRAPeftLinear)]


# -- on and off --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("targets", [["q_proj"], r".*\.mlp\..*_proj", "all-linear", None])
def test_a_new_adapter_changes_nothing(targets):
    model = get_peft_model(llama(), HypLoRAConfig(target_modules=targets))
    assert layers_of(model)
    assert torch.equal(logits(model.eval()), logits(llama()))


def test_it_computes_what_the_core_does(tmp_path):
    model, core = adapted(s="learnable"), llama()
    model.save_pretrained(tmp_path)
    hyplora.load(core, tmp_path)
    assert torch.equal(logits(core), logits(model))
    assert not torch.equal(logits(core), logits(llama()))


@pytest.mark.parametrize("variant", ["exp", "literal", "official", "stereographic"])
def test_the_core_reads_its_files_and_it_the_cores(variant, tmp_path):
    model = adapted(variant=variant, use_rslora=True, learn_K=False)
    model.save_pretrained(tmp_path / "peft")
    core = llama()
    hyplora.load(core, tmp_path / "peft")
    hyplora.save(core, tmp_path / "core")
    again = PeftModel.from_pretrained(llama(), tmp_path / "core").eval()
    assert torch.equal(logits(core), logits(model))
    assert torch.equal(logits(again), logits(model))


@pytest.mark.parametrize("dora", [False, True])
def test_peft_and_the_core_agree_on_lora_and_dora(dora, tmp_path):
    core = llama()
    targets = ["q_proj", "down_proj"]
    hyplora.inject(core, hyplora.AdapterConfig("dora" if dora else "lora", r=4, target_modules=targets))
    grow(core, name="")
    hyplora.save(core, tmp_path / "core")
    theirs = PeftModel.from_pretrained(llama(), tmp_path / "core").eval()
    assert torch.allclose(logits(theirs), logits(core), atol=1e-5)
    peft = grow(get_peft_model(llama(), LoraConfig(r=4, target_modules=targets, use_dora=dora)).eval())
    peft.save_pretrained(tmp_path / "peft")
    ours = llama()
    hyplora.load(ours, tmp_path / "peft")
    assert torch.allclose(logits(ours), logits(peft), atol=1e-5)


def test_training_moves_the_adapter_and_not_a_frozen_k():
    model = adapted(learn_K=False, lora_dropout=0.1)
    before = {n: p.clone() for n, p in model.named_parameters()}
    optimiser = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for _ in range(8):
        loss = model.train()(input_ids=IDS, labels=IDS).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    moved = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert moved == {n for n in before if "hyplora_A" in n or "hyplora_B" in n}


def test_it_adapts_a_base_of_four_bits():
    bnb = pytest.importorskip("bitsandbytes", reason="4-bit weights need bitsandbytes")
    base = llama(hidden=64)
    for layer in base.model.layers:
        weight = layer.self_attn.q_proj.weight.data
        four = bnb.nn.Linear4bit(64, 64, bias=False, compute_dtype=torch.float32, quant_type="nf4")
        four.weight = bnb.nn.Params4bit(weight, requires_grad=False, quant_type="nf4")
        layer.self_attn.q_proj = four.to(IDS.device)
    before = logits(base)
    model = get_peft_model(base, HypLoRAConfig(r=4, target_modules=["q_proj"], K=0.5))
    torch.testing.assert_close(logits(model), before, rtol=0, atol=0)
    optimiser = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for _ in range(8):
        losses.append(model(input_ids=IDS, labels=IDS).loss)
        optimiser.zero_grad()
        losses[-1].backward()
        optimiser.step()
    assert losses[-1] < losses[0]
    with model.disable_adapter():
        torch.testing.assert_close(logits(model), before, rtol=0, atol=0)


def test_k_learns_where_it_may():
    model = adapted()
    model(input_ids=IDS, labels=IDS).loss.backward()
    assert all(m.hyplora_k["default"].grad.abs() > 0 for m in layers_of(model))


def test_gradient_checkpointing_gives_the_same_gradients():
    def gradients(model):
        model.train()(input_ids=IDS, labels=IDS).loss.backward()
        return {n: p.grad for n, p in model.named_parameters() if p.grad is not None}

    plain = gradients(adapted())
    model = adapted()
    model.enable_input_require_grads()
    model.gradient_checkpointing_enable({"use_reentrant": False})
    again = gradients(model)
    assert plain.keys() <= again.keys()
    assert all(torch.allclose(plain[n], again[n], atol=1e-6) for n in plain)


def test_a_half_precision_base_keeps_float32_adapters():
    model = adapted(llama().to(torch.bfloat16))
    assert {p.dtype for n, p in model.named_parameters() if "hyplora" in n} == {torch.float32}
    assert logits(model).dtype == torch.bfloat16
    model(input_ids=IDS, labels=IDS).loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.requires_grad)


def test_it_goes_on_conv1d():
    config = GPT2Config(vocab_size=50, n_positions=32, n_embd=32, n_layer=1, n_head=2)
    base = GPT2LMHeadModel(config).eval()
    want = logits(base)
    model = get_peft_model(base, HypLoRAConfig(target_modules=["c_attn"])).eval()
    assert torch.equal(logits(model), want)
    assert not torch.equal(logits(grow(model)), want)


def test_generation_takes_the_adapter_and_its_cache():
    model = adapted(K=0.05, lora_alpha=64)
    out = model.generate(
        input_ids=IDS,
        attention_mask=torch.ones_like(IDS),
        max_new_tokens=5,
        do_sample=False,
        eos_token_id=None,
    )
    ids = IDS
    for _ in range(5):
        with torch.no_grad():
            ids = torch.cat([ids, model(input_ids=ids).logits[:, -1:].argmax(-1)], 1)
    assert torch.equal(out, ids)


def test_disabled_is_the_base_and_unloading_gives_it_back():
    model = adapted()
    y = logits(model)
    with model.disable_adapter():
        assert torch.equal(logits(model), logits(llama()))
    assert torch.equal(logits(model), y)
    assert torch.equal(logits(model.unload()), logits(llama()))


# -- several adapters --------------------------------------------------------------------------------------
def test_adapters_are_chosen_saved_and_deleted_by_name(tmp_path):
    model = adapted()
    first = logits(model)
    second = HypLoRAConfig(r=2, target_modules=["q_proj"], K=2.0, learn_K=False)
    model.add_adapter("second", second)
    grow(model, "second", seed=5)
    assert torch.equal(logits(model), first)
    model.set_adapter("second")
    other = logits(model)
    assert not torch.equal(other, first)
    trainable = {n for n, p in model.named_parameters() if p.requires_grad}
    assert trainable
    assert all(n.endswith("second") and "hyplora_k" not in n for n in trainable)
    model.save_pretrained(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} >= {"second", "adapter_config.json"}
    fresh = PeftModel.from_pretrained(llama(), tmp_path)
    fresh.load_adapter(tmp_path / "second", "second")
    assert torch.equal(logits(fresh.eval()), first)
    fresh.set_adapter("second")
    assert torch.equal(logits(fresh), other)
    model.delete_adapter("second")
    model.set_adapter("default")
    assert torch.equal(logits(model), first)


def test_active_adapters_see_the_same_input_and_are_added():
    model = adapted(target_modules=["layers.0.self_attn.q_proj"])
    model.add_adapter("second", HypLoRAConfig(r=2, target_modules=["layers.0.self_attn.q_proj"]))
    grow(model, "second", seed=5)
    (layer,) = layers_of(model)
    x = torch.randn(3, 32)
    each = []
    for name in ("default", "second"):
        layer.set_adapter(name)
        each.append(layer(x) - layer.base_layer(x))
    layer.set_adapter(["default", "second"])
    assert torch.allclose(layer(x), layer.base_layer(x) + sum(each), atol=1e-6)


def test_the_gate_is_that_of_the_core():
    (layer,) = layers_of(adapted(target_modules=["layers.0.self_attn.q_proj"]))
    core = hyplora.HypLoRALinear(layer.base_layer, 4, 16, K=0.5)
    core.hyplora_A.data, core.hyplora_B.data = (
        layer.hyplora_A["default"].data,
        layer.hyplora_B["default"].data,
    )
    x = torch.randn(3, 32)
    assert torch.equal(layer.gate(x), core.gate(x))


# -- refused -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("ask", ["merge_and_unload", "merge_adapter", "unmerge_adapter"])
def test_a_merge_is_refused_with_the_reason(ask):
    model = adapted()
    y = logits(model)
    with pytest.raises(ParameterError, match="depends on the token; merge_approx"):
        getattr(model, ask)()
    assert torch.equal(logits(model), y)


def test_the_approximate_merge_returns_the_base_and_its_error():
    model = adapted(K=1e9)
    y = logits(model)
    base, errors = merge_approx(model, [{"input_ids": IDS}])
    assert isinstance(base, LlamaForCausalLM)
    assert not layers_of(base)
    assert len(errors) == 6
    assert max(errors.values()) < 1e-4
    assert torch.allclose(logits(base), y, atol=1e-4)
    with pytest.raises(ParameterError, match="exactly one active"):
        merge_approx(get_peft_model(llama(), LoraConfig(target_modules=["q_proj"])), [])


def test_an_adapter_of_another_base_is_refused(tmp_path):
    adapted().save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="another base model"):
        PeftModel.from_pretrained(llama(seed=1), tmp_path)
    with pytest.raises(RuntimeError, match="size mismatch"):
        config = PeftConfig.from_pretrained(tmp_path)
        config.base_sample, config._from_file = None, False
        PeftModel.from_pretrained(llama(hidden=64), tmp_path, config=config)
    PeftModel.from_pretrained(llama().to(torch.bfloat16), tmp_path)


def test_one_config_may_serve_two_bases():
    config = HypLoRAConfig(target_modules=["q_proj"])
    get_peft_model(llama(), config)
    get_peft_model(llama(seed=1), config)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"r": 0}, "rank r must be"),
        ({"K": 0.0}, "K must be positive"),
        ({"variant": "lorentz"}, "variant must be one of"),
        ({"bias": "all"}, 'bias must be "none"'),
        ({"lora_dropout": 2.0}, "dropout must be"),
    ],
)
def test_settings_that_make_no_sense_are_refused(options, words):
    with pytest.raises(ParameterError, match=words):
        HypLoRAConfig(**options)


@pytest.mark.parametrize(
    ("targets", "words"),
    [
        (["q_porj"], "matches no module of the model; did you mean 'q_proj'"),
        (["mlp"], "'model.layers.0.mlp' is LlamaMLP"),
        ("embed.*", "matches no module"),
    ],
)
def test_targets_that_cannot_be_are_refused_and_nothing_changes(targets, words):
    base = llama()
    with pytest.raises(ParameterError, match=words):
        get_peft_model(base, HypLoRAConfig(target_modules=targets))
    assert not layers_of(base)


def test_peft_without_this_module_does_not_take_it_for_lora(tmp_path):
    adapted().save_pretrained(tmp_path)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["peft_type"] == "HYPLORA"
    code = f"from peft import PeftConfig; PeftConfig.from_pretrained({str(tmp_path)!r})"
    alone = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert alone.returncode != 0
    assert "HYPLORA" in alone.stderr
