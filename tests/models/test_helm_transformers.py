"""HELM and its twins as models of transformers: the same numbers, files, continuations and loss."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

import pytest
import torch

from workbench.errors import ParameterError
from workbench.models.decoder import Decoder, DecoderConfig
from workbench.models.helm import HELM
from workbench.models.helm_config import HELMConfig, spaced
from workbench.models.pieces import END_TEXT, Pieces
from workbench.models.twins import DeepSeekConfig, DeepSeekTwin, LlamaTwin, TwinConfig

transformers = pytest.importorskip("transformers")
from workbench.models.helm_transformers import (  # noqa: E402 - needs it
    WorkbenchConfig,
    WorkbenchForCausalLM,
    fast_tokenizer,
    wrapped,
)

VOCABULARY, CONTEXT = 270, 40
SIZES = {"vocab_size": VOCABULARY, "layers": 2, "heads": 2, "hidden": 13, "context": CONTEXT}
LATENT = {"latent": 6, "content": 4, "rotary": 2, "value": 3, "expert_hidden": 5}
MIXED = SIZES | LATENT | {"dim": 11, "expert_c": spaced(3), "c": 0.3, "embedding": "points"}
FLAT = SIZES | {"width": 16, "tied": False}
MODELS = {
    "dense": lambda: HELM(HELMConfig(**SIZES, dim=11, head_dim=4)),
    "mixed": lambda: HELM(HELMConfig(**MIXED)),
    "llama": lambda: LlamaTwin(TwinConfig(**FLAT)),
    "tied": lambda: LlamaTwin(TwinConfig(**FLAT | {"tied": True})),
    "deepseek": lambda: DeepSeekTwin(DeepSeekConfig(**FLAT | LATENT)),
}
ROWS = [[1, 17, 4], [5, 6, 7, 8, 9]]


@pytest.fixture(params=MODELS)
def model(request):
    return MODELS[request.param]().eval()


@pytest.fixture(scope="module")
def pieces() -> Pieces:
    return Pieces.train(["the cat sat on the mat"] * 8, VOCABULARY)


def filled_left() -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.tensor([[0, 0, *ROWS[0]], ROWS[1]])
    return ids, torch.tensor([[0, 0, 1, 1, 1], [1] * 5])


def tokens(*shape: int) -> torch.Tensor:
    return torch.randint(1, VOCABULARY, shape, generator=torch.Generator().manual_seed(0))


# -- numbers -----------------------------------------------------------------------------------------------------
def test_logits_are_those_of_the_model_and_padding_is_not_seen(model):
    ids, mask = filled_left()
    ours = wrapped(model)
    assert torch.equal(ours(ids, attention_mask=mask).logits, model(ids, mask.bool()))
    alone = model(torch.tensor(ROWS[:1]))
    torch.testing.assert_close(ours(ids, attention_mask=mask).logits[:1, 2:], alone, rtol=1e-4, atol=1e-5)


def test_the_loss_is_that_of_shifted_labels(model):
    ids = tokens(2, 9)
    labels = ids.clone()
    labels[0, :4] = -100
    found = wrapped(model)(ids, labels=labels)
    torch.testing.assert_close(found.loss, model.loss(ids[:, :-1], labels[:, 1:]))
    assert found.logits.shape == (2, 9, VOCABULARY)


def test_training_gives_the_loss_alone_and_gradients_of_the_model(model):
    ids = tokens(2, 9)
    found = wrapped(model.train())(ids, labels=ids)
    assert found.logits is None
    found.loss.backward()
    assert all(p.grad is not None for p in model.parameters())


# -- continuations -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("use_cache", [True, False])
def test_generate_continues_as_the_model_does(model, use_cache):
    ids, mask = filled_left()
    found = wrapped(model).generate(
        ids, attention_mask=mask, max_new_tokens=8, do_sample=False, use_cache=use_cache, eos_token_id=None
    )
    assert found[:, 5:].tolist() == model.generate(ROWS, 8)


def test_beams_take_their_cache_along(model):
    ids, mask = filled_left()
    how = dict(attention_mask=mask, max_new_tokens=8, num_beams=3, do_sample=False)
    found = [wrapped(model).generate(ids, use_cache=use_cache, **how) for use_cache in (True, False)]
    assert torch.equal(*found)


# -- files -------------------------------------------------------------------------------------------------------
def test_a_saved_model_comes_back_bit_for_bit(model, tmp_path):
    wrapped(model).save_pretrained(tmp_path)
    found = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    assert isinstance(found, WorkbenchForCausalLM)
    for (name, ours), (other, theirs) in zip(
        model.state_dict().items(), found.model.state_dict().items(), strict=True
    ):
        assert name == other
        assert ours.dtype == theirs.dtype
        assert torch.equal(ours, theirs)
    ids = tokens(2, 7)
    assert torch.equal(found(ids).logits, model(ids))
    assert [type(p) for p in model.parameters()] == [type(p) for p in found.parameters()]


def test_in_half_precision_curvatures_keep_their_digits(tmp_path):
    model = MODELS["mixed"]()
    wrapped(model).save_pretrained(tmp_path)
    found = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert found.model.head.weight.dtype == torch.bfloat16
    assert float(found.model.manifold.c) == 0.3
    logits = found(tokens(2, 7)).logits
    torch.testing.assert_close(logits, model.eval()(tokens(2, 7)), rtol=0.1, atol=0.1)


# -- text --------------------------------------------------------------------------------------------------------
def test_the_tokenizer_gives_the_ids_of_pieces_also_from_its_file(pieces, tmp_path):
    fast_tokenizer(pieces, CONTEXT).save_pretrained(tmp_path)
    found = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text in ("the cat", "  a , naïve\n\tmat .", f"no {END_TEXT} here", ""):
        ids = found(text).input_ids
        assert ids == pieces.encode(text)
        assert found.decode(ids) == text
    assert (found.eos_token_id, found.pad_token_id, found.model_max_length) == (
        Pieces.END,
        Pieces.END,
        CONTEXT,
    )


# -- what goes wrong ---------------------------------------------------------------------------------------------
def test_nonsense_is_refused_in_a_sentence():
    with pytest.raises(ParameterError, match="kind must be one of helm, llama, deepseek"):
        WorkbenchConfig("gpt", {})
    with pytest.raises(ParameterError, match="helm has no setting 'widht'"):
        WorkbenchConfig("helm", {"vocab_size": 9, "widht": 3})
    with pytest.raises(ParameterError, match="can be wrapped, but Decoder came"):
        wrapped(Decoder(DecoderConfig(9)))
    model = wrapped(MODELS["dense"]())
    with pytest.raises(ParameterError, match="labels must have the shape"):
        model(tokens(2, 5), labels=tokens(2, 4))
    with pytest.raises(ParameterError, match="40 tokens, the context, but came with 41"):
        model(tokens(1, 41))


def test_without_transformers_the_way_to_it_is_told():
    code = "import sys; sys.modules['transformers'] = None; import workbench.models.helm_transformers"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "ImportError: transformers must be installed: pip install" in done.stderr


# -- lm-eval -----------------------------------------------------------------------------------------------------
@pytest.mark.skipif(find_spec("lm_eval") is None, reason="needs lm_eval")
def test_lm_eval_scores_answers_as_the_model_does(pieces, tmp_path):
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    model = HELM(HELMConfig(**MIXED)).eval()
    evaluated = HFLM(pretrained=wrapped(model), tokenizer=fast_tokenizer(pieces, CONTEXT), batch_size=2)
    asked = [("the cat", " sat"), ("the cat sat on", " the mat"), ("the", " naïve")]
    requests = [
        Instance(request_type="loglikelihood", doc={}, arguments=pair, idx=i) for i, pair in enumerate(asked)
    ]
    for (question, answer), (found, _) in zip(asked, evaluated.loglikelihood(requests), strict=True):
        ids = pieces.encode(question + answer)
        start = len(pieces.encode(question))
        logs = model(torch.tensor([ids])).detach().log_softmax(-1)[0]
        expected = sum(float(logs[i - 1, ids[i]]) for i in range(start, len(ids)))
        assert found == pytest.approx(expected, abs=1e-3)
