"""Instruction tuning of a tiny random Llama with a tokenizer of its own, by the calls a real one takes."""

import json

import pytest

from workbench.data import prompts
from workbench.data.prompts import Prompt
from workbench.errors import DataError, ParameterError
from workbench.evaluation.answers import exact_match
from workbench.models.hyplora_adapters import adapters
from workbench.models.hyplora_files import load
from workbench.training import instructions
from workbench.training.instructions import Instructions, instruction_run, load_language_model, spoken

transformers = pytest.importorskip("transformers")
pytest.importorskip("peft")

SUMS = [
    Prompt(f"What is {a} + {b} ?", str(a + b), solution=f"{a} + {b} = {a + b}")
    for a in range(4)
    for b in range(4)
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    import tokenizers
    import torch
    from tokenizers import models, pre_tokenizers, trainers

    texts = [instructions.TEMPLATE.format(question=p.text) + spoken(p) for p in SUMS]
    backend = tokenizers.Tokenizer(models.WordLevel(unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.train_from_iterator(texts, trainers.WordLevelTrainer(special_tokens=["<unk>", "<s>", "</s>"]))
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )
    config = transformers.LlamaConfig(
        vocab_size=len(fast), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=128,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(config)
    with torch.no_grad():
        for p in (model.model.embed_tokens.weight, model.lm_head.weight):
            p.mul_(20)  # fresh tables say next to nothing
    path = tmp_path_factory.mktemp("llama")
    model.save_pretrained(path), fast.save_pretrained(path)
    return str(path)


@pytest.fixture
def sums(monkeypatch):
    sets = {("sums", "train"): SUMS, ("few", "test"): SUMS[:3]}
    monkeypatch.setattr(prompts, "load", lambda name, split="test": sets[name, split])


def test_the_worked_answer_ends_with_the_answer():
    assert spoken(SUMS[1]) == "0 + 1 = 1"
    assert spoken(Prompt("?", "7")) == "The answer is 7."
    long = Prompt("?", "7", solution="3 + 4 = 7, not 8")
    assert spoken(long).endswith("The answer is 7.") and exact_match([spoken(long)], [long]).rate == 1


def test_the_question_counts_only_where_asked_for(folder):
    model, tokenizer = load_language_model(folder)
    plain, whole = (Instructions(model, tokenizer, SUMS, on_question=q) for q in (False, True))
    assert [a + b for a, b in zip(plain.asked, plain.answered, strict=True)] == [
        a + b for a, b in zip(whole.asked, whole.answered, strict=True)
    ]
    assert all(len(a) == 1 for a in whole.asked) and all(len(b) == 6 for b in plain.answered)


def test_examples_that_are_too_long_are_left_out_and_counted(folder):
    model, tokenizer = load_language_model(folder)
    long = Prompt("What is 1 + 1 ?" * 30, "2")
    assert Instructions(model, tokenizer, [*SUMS, long], longest=60).left_out == 1
    with pytest.raises(DataError, match="no example of at most 5 tokens"):
        Instructions(model, tokenizer, SUMS, longest=5)


def test_a_run_learns_leaves_the_tests_out_and_saves_an_adapter(folder, sums, tmp_path):
    about = dict(
        model=folder, train="sums", tests=["few"], max_new=8, r=8, lora_alpha=32, steps=120, batch=13
    )
    row = instruction_run(**about, method="hyplora", lr=0.01, warmup=5, save=str(tmp_path / "adapter"))
    base = instruction_run(**about, method="none")
    assert row["leaks"] == 3 and row["left_out"] == 0
    assert row["loss"] < 1.0 and len(row["right"]["few"]) == 3 and base["parameters"] == 0 < row["parameters"]
    assert json.dumps(row)
    model, _ = load_language_model(folder)
    load(model, tmp_path / "adapter")
    assert len(adapters(model)) == 2 * len(instructions.TARGETS)


def test_what_nothing_knows_is_named(folder, sums):
    with pytest.raises(ParameterError, match="no language model"):
        load_language_model("/no/such/folder")
    with pytest.raises(ParameterError, match="no parameter 'alpha'"):
        instruction_run(model=folder, alpha=3)
    with pytest.raises(ParameterError, match="method must be one of"):
        instruction_run(model=folder, method="all-of-it")
