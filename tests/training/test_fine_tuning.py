"""Fine-tuning: what counts in the loss, that it learns, repeats itself, and stops where it should."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from workbench.errors import DataError, ParameterError
from workbench.models.decoder import Decoder, DecoderConfig
from workbench.models.hyplora_adapters import AdapterConfig, inject
from workbench.training.fine_tuning import (
    Chooser,
    FineTuneSettings,
    Writing,
    drawn,
    fine_tune,
    generate,
    logits_at,
    padded,
)

PAD, END = 0, 1


def small(seed=0, **changes):
    about = dict(vocab_size=13, width=16, layers=2, heads=2, hidden=24, context=32, seed=seed)
    return Decoder(DecoderConfig(**about | changes))


def copying(n=60, seed=0):
    """The answer is the last token of the question, twice."""
    generator = torch.Generator().manual_seed(seed)
    asked = [
        torch.randint(2, 13, (int(k),), generator=generator).tolist()
        for k in torch.randint(2, 7, (n,), generator=generator)
    ]
    return asked, [[row[-1], row[-1], END] for row in asked]


def test_the_loss_is_the_mean_over_the_tokens_of_the_answers_alone():
    model, (asked, said) = small(), copying(5)
    task = Writing(model, asked, said, end=END)
    logs = []
    for a, b in zip(asked, said, strict=True):
        log = F.log_softmax(model(torch.tensor([a + b]))[0], -1)
        logs += [-log[len(a) - 1 + i, token] for i, token in enumerate(b)]
    torch.testing.assert_close(task.loss(torch.arange(5)), torch.stack(logs).mean(), atol=1e-5, rtol=1e-5)


def test_an_adapter_learns_what_the_frozen_base_does_not_know():
    model, (asked, said) = small(), copying()
    with torch.no_grad():
        model.embed_tokens.weight *= 40  # an untrained table is too small to say anything
    before = {n: p.clone() for n, p in model.state_dict().items()}
    inject(model, AdapterConfig(method="hyplora", r=8, lora_alpha=32, target_modules=r"layers\..*proj"))
    task = Writing(model, asked, said, end=END)
    fit = fine_tune(model, task.loss, len(task), FineTuneSettings(steps=250, batch=20, lr=0.03), report=1)
    assert fit.history[-1]["loss"] < 0.3 * fit.history[0]["loss"]
    right = [w == b[:-1] for w, b in zip(task.write(max_new=4), said, strict=True)]
    assert sum(right) > 0.8 * len(right)
    kept = {n.replace("base_layer.", ""): p for n, p in model.state_dict().items() if "hyplora" not in n}
    assert kept.keys() == before.keys() and all(torch.equal(kept[n], before[n]) for n in before)


def test_the_same_seed_gives_the_same_weights_and_another_does_not():
    def trained(seed):
        model, (asked, said) = small(dropout=0.1), copying(20)
        task = Writing(model, asked, said, end=END)
        fine_tune(model, task.loss, len(task), FineTuneSettings(steps=5, batch=6), seed=seed)
        return torch.cat([p.flatten() for p in model.parameters()])

    assert torch.equal(trained(3), trained(3)) and not torch.equal(trained(3), trained(4))


def test_every_example_comes_once_an_epoch():
    for epoch in range(3):
        rows = torch.cat([drawn(23, 5, 0, 5 * epoch + k) for k in range(5)])
        assert sorted(rows.tolist()) == list(range(23))


def test_written_answers_do_not_depend_on_their_neighbours():
    model, (asked, _) = small(), copying(9)
    task = Writing(model, asked, [[2]] * 9, end=END)
    alone = [generate(model, [row], 5, END)[0] for row in asked]
    assert task.write(max_new=5, batch=4) == alone


def test_padding_goes_where_it_is_asked_for():
    ids, mask = padded([[5], [6, 7]], pad=9, left=True)
    assert ids.tolist() == [[9, 5], [6, 7]] and mask.tolist() == [[False, True], [True, True]]
    ids, mask = padded([[5], [6, 7]], pad=9)
    assert ids.tolist() == [[5, 9], [6, 7]] and mask.tolist() == [[True, False], [True, True]]


def test_a_model_of_transformers_does_as_ours_does():
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=13, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=32,
    )  # fmt: skip
    torch.manual_seed(0)
    theirs = transformers.LlamaForCausalLM(config).eval()
    ids, mask = padded([[2, 3, 4], [5, 6]])
    where = torch.tensor([[False, False, True], [False, True, False]])
    assert logits_at(theirs, ids, mask, where).shape == (2, 13)
    asked, said = copying(12)
    task = Writing(theirs, asked, said, end=END)
    inject(theirs, AdapterConfig(method="lora", r=2, target_modules=("q_proj", "v_proj")))
    fit = fine_tune(theirs, task.loss, len(task), FineTuneSettings(steps=3, batch=4), report=1)
    assert len(fit.history) == 3
    alone = [generate(theirs, [row], 3, END)[0] for row in asked[:3]]
    assert task.write(asked[:3], max_new=3) == alone


def test_an_encoder_learns_to_choose():
    class Mean(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(5, 8)

        def forward(self, ids, mask):
            return (self.table(ids) * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)

    torch.manual_seed(0)
    model = Chooser(Mean(), 8, ["a", "b", "c"])
    ids = torch.randint(3, (40, 1))
    mask = torch.ones_like(ids, dtype=torch.bool)
    settings = FineTuneSettings(steps=60, batch=10, lr=0.05)
    fine_tune(model, lambda rows: F.cross_entropy(model(ids[rows], mask[rows]), ids[rows, 0]), 40, settings)
    assert (model(ids, mask).argmax(1) == ids[:, 0]).all()


def test_what_cannot_be_trained_is_said():
    model, (asked, said) = small(), copying(4)
    task = Writing(model, asked, said, end=END)
    with pytest.raises(ParameterError, match="steps must be a whole number"):
        FineTuneSettings(steps=-1)
    with pytest.raises(ParameterError, match="lr"):
        FineTuneSettings(lr=math.nan)
    with pytest.raises(DataError, match="at least one example"):
        fine_tune(model, task.loss, 0)
    with pytest.raises(DataError, match="3 questions need as many answers"):
        Writing(model, asked[:3], said, end=END)
    with pytest.raises(DataError, match="came empty"):
        Writing(model, [[]], [[2]], end=END)
    with pytest.raises(ParameterError, match="two different labels"):
        Chooser(nn.Identity(), 4, ["a"])
    model.requires_grad_(False)
    with pytest.raises(ParameterError, match="nothing of this model can learn"):
        fine_tune(model, task.loss, 4)


def test_a_loss_that_is_no_number_stops_the_training_and_leaves_the_weights():
    model, (asked, said) = small(), copying(8)
    task = Writing(model, asked, said, end=END)
    steps = []

    def loss(rows):
        steps.append({n: p.clone() for n, p in model.state_dict().items()})
        value = task.loss(rows)
        return value * math.nan if len(steps) == 3 else value

    with pytest.raises(ParameterError, match="not finite in step 3"):
        fine_tune(model, loss, 8, FineTuneSettings(steps=5, batch=4))
    for name, value in model.state_dict().items():
        assert torch.equal(value, steps[-1][name])
