"""The trainer of language models: gradients are those of the whole batch, runs resume bit for bit, bad steps are
skipped and counted, and figures are what naive sums say."""

import math
import os
import socket
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from workbench.data import text
from workbench.errors import CheckpointError, DataError, ParameterError
from workbench.models.helm import HELM
from workbench.models.helm_config import preset
from workbench.models.twins import DeepSeekConfig, DeepSeekTwin, LlamaTwin, TwinConfig
from workbench.training.lm import LMSettings, LMTrainer, due, evaluate, fit_lm
from workbench.training.lm_steps import Devices, optimizer_of, step_of

SIZES = dict(vocab_size=12, layers=2, heads=2, context=8)
SMALL = SIZES | dict(width=16, hidden=20, tied=False)
LATENT = dict(latent=6, content=4, rotary=2, value=3)
QUICK = LMSettings(steps=6, batch=4, lr=1e-2)


def helm_d(**changes):
    return HELM(preset("mini", **SIZES | dict(dim=15, hidden=20, head_dim=4) | changes))


def helm_mice():
    return HELM(preset("mini_mice", **SIZES | LATENT | dict(dim=15, hidden=20, expert_hidden=6)))


def llama():
    return LlamaTwin(TwinConfig(**SMALL))


def deepseek():
    return DeepSeekTwin(DeepSeekConfig(**SMALL | LATENT, expert_hidden=6))


ARMS = {f.__name__: f for f in (helm_d, helm_mice, llama, deepseek)}
arms = pytest.mark.parametrize("make", ARMS.values(), ids=ARMS)


@pytest.fixture(scope="module")
def rows():
    """Documents that count upwards from anywhere: what follows is certain, but for the start and the end."""
    draw = np.random.default_rng(0)
    documents = [list(range(1 + a, 1 + a + n)) for a, n in draw.integers([0, 3], [5, 7], (60, 2)).tolist()]
    return text.Rows(*text.packed(documents, 8), sum(map(len, documents)))


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_each_row_is_due_once_an_epoch_and_batches_are_whole():
    drawn = torch.cat([due(10, 4, 7, step) for step in range(5)])  # two epochs
    assert sorted(drawn[:10].tolist()) == sorted(drawn[10:].tolist()) == list(range(10))
    assert drawn[:10].tolist() != drawn[10:].tolist() != due(10, 20, 8, 0)[10:].tolist()


@arms
def test_every_arm_learns_and_reports(make, rows):
    start = evaluate(make(), rows)["nats"]
    fit = fit_lm(make(), rows, LMSettings(steps=60, batch=8, lr=1e-2), valid=rows, report=20)
    assert [row["step"] for row in fit.history] == [20, 40, 60]
    assert fit.history[-1]["valid"] < 1.4 < 2.2 < start < math.log(12) + 1.5
    assert fit.skipped == 0 and not fit.model.training
    assert 58 * 8 * 8 < fit.tokens <= 60 * 8 * 8 and fit.seconds > 0


@arms
def test_a_gradient_in_pieces_is_that_of_the_whole_batch(make, rows):
    """With padding in the last row, so that pieces weigh differently."""
    found = []
    for accumulate in (1, 3):
        settings = LMSettings(batch=len(rows) // 3 * 3, accumulate=accumulate)
        trainer = LMTrainer(make().double(), rows, settings, 0, "cpu")
        trainer.model.config.__dict__["balance"] = 0.0  # which is a mean over pieces, not over tokens
        loss = trainer._gradient(torch.arange(settings.batch).flip(0) + len(rows) - settings.batch)
        found.append((loss, torch.cat([p.grad.flatten() for p in trainer.model.parameters()])))
    torch.testing.assert_close(*found, rtol=1e-6, atol=1e-8)


@arms
def test_a_resumed_run_is_the_same_run_bit_for_bit(make, rows, tmp_path):
    settings = LMSettings(steps=7, batch=4, lr=1e-2)
    whole = fit_lm(make(), rows, settings, report=2, valid=rows)
    trainer = LMTrainer(make(), rows, settings, 0, "cpu")
    for _ in range(3):
        row = trainer.advance()
        if row["step"] == 2:
            trainer.fit.history.append(row | {"valid": whole.history[0]["valid"]})
    trainer.save(tmp_path / "run")
    again = fit_lm(make(), rows, settings, report=2, valid=rows, checkpoint=tmp_path / "run")
    assert torch.equal(weights(whole.model), weights(again.model))
    assert again.history == whole.history and again.tokens == whole.tokens
    for a, b in zip(whole.model.buffers(), again.model.buffers(), strict=True):
        assert torch.equal(a, b)


def test_points_of_a_manifold_stay_on_it_and_resume_as_well(rows, tmp_path):
    settings = LMSettings(steps=4, batch=4, lr=1e-2)
    whole = fit_lm(helm_d(embedding="points"), rows, settings)
    x = whole.model.embedding.weight.detach().double()
    torch.testing.assert_close(
        (x[:, 1:] ** 2).sum(-1) - x[:, 0] ** 2, -torch.ones(12).double(), rtol=0, atol=1e-5
    )
    trainer = LMTrainer(helm_d(embedding="points"), rows, settings, 0, "cpu")
    trainer.advance(), trainer.save(tmp_path / "run")
    again = fit_lm(helm_d(embedding="points"), rows, settings, checkpoint=tmp_path / "run")
    assert torch.equal(weights(whole.model), weights(again.model))


def test_another_run_is_not_continued(rows, tmp_path):
    fit_lm(llama(), rows, QUICK, checkpoint=tmp_path / "run")
    for other in (dict(seed=1), dict(settings=LMSettings(steps=6, batch=4)), dict(model=deepseek())):
        with pytest.raises(CheckpointError, match="cannot be continued"):
            fit_lm(**dict(model=llama(), rows=rows, settings=QUICK, checkpoint=tmp_path / "run") | other)


def test_a_step_is_adam_with_decoupled_decay_of_matrices_only():
    model, other = helm_d(learn_c=True), helm_d(learn_c=True)
    matrices = [p for p in other.parameters() if p.ndim > 1]
    curved = {id(p) for p in other.curvatures()}
    assert curved
    rest = [p for p in other.parameters() if p.ndim < 2 and id(p) not in curved]
    oracle = torch.optim.AdamW([
        {"params": matrices, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0},
        {"params": other.curvatures(), "weight_decay": 0.0, "lr": 1e-3},
    ], lr=1e-2)  # fmt: skip
    ours = optimizer_of(model, 1.0, 0.1, 0.1)
    for seed in range(3):
        for m in (model, other):
            generator = torch.Generator().manual_seed(seed)
            for p in m.parameters():
                p.grad = torch.randn(p.shape, generator=generator).to(p.dtype)
        step_of(ours, model, 1e-2, clip=0.5)
        torch.nn.utils.clip_grad_norm_(other.parameters(), 0.5)
        oracle.step()
    torch.testing.assert_close(weights(model), weights(other))


@arms
def test_a_step_that_is_not_finite_changes_nothing_and_is_counted(make, rows):
    trainer = LMTrainer(make(), rows, LMSettings(steps=9, batch=4, patience=2), 0, "cpu")
    trainer.advance()
    before, buffers = weights(trainer.model), [b.clone() for b in trainer.model.buffers()]
    broken = next(p for p in trainer.model.parameters() if p.ndim == 2)
    kept = broken.detach().clone()
    with torch.no_grad():
        broken.fill_(torch.nan)
    trainer.advance()
    with torch.no_grad():
        broken.copy_(kept)
    assert torch.equal(weights(trainer.model), before) and trainer.fit.skipped == 1
    for a, b in zip(trainer.model.buffers(), buffers, strict=True):
        assert torch.equal(a, b)
    trainer.advance()
    assert not torch.equal(weights(trainer.model), before) and trainer.in_a_row == 0
    with torch.no_grad():
        broken.fill_(torch.inf)
    trainer.advance()
    with pytest.raises(ParameterError, match="not finite in 2 steps"):
        trainer.advance()


def test_a_loss_far_above_its_running_mean_is_a_spike(rows):
    trainer = LMTrainer(llama(), rows, LMSettings(spike=0.5), 0, "cpu")
    for loss in (2.0, 2.4, 2.6, 1.9, 5.0, 2.0):
        trainer._watch(loss)
    assert trainer.fit.spikes == 2  # 2.6 against 2.02, 5 against 2.04


@arms
def test_evaluation_is_the_sum_of_all_targets_however_it_is_cut(make, rows):
    model = make().eval()
    one, other = evaluate(model, rows, batch=3), evaluate(model, rows, batch=100)
    total, n = 0.0, 0
    for ids, numbers in zip(torch.from_numpy(rows.ids).long(), torch.from_numpy(rows.documents), strict=True):
        for j in range(8):
            if numbers[j + 1] < 0:
                continue
            start = int((numbers[: j + 1] == numbers[j]).nonzero()[0])
            logits = model(ids[None, start : j + 1])[0, -1]
            total, n = total + F.cross_entropy(logits, ids[j + 1]).item(), n + 1
    assert one["tokens"] == other["tokens"] == n == rows.tokens
    assert one["nats"] == pytest.approx(total / n, rel=1e-5) == pytest.approx(other["nats"], rel=1e-5)
    assert one["bits_per_byte"] == pytest.approx(total / math.log(2) / rows.bytes, rel=1e-5)
    assert one["perplexity"] == pytest.approx(math.exp(total / n), rel=1e-4)


def test_the_rate_rises_then_falls_to_its_floor():
    settings = LMSettings(steps=100, lr=1.0, warmup=0.1, floor=0.2)
    rates = [settings.rate(step) for step in range(100)]
    assert rates[:10] == pytest.approx([0.1 * k for k in range(1, 11)])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[10] == 1.0 and rates[55] == pytest.approx(0.6) and rates[-1] == pytest.approx(0.2, abs=1e-3)


def test_balancing_happens_after_each_step(rows):
    model = helm_mice()
    fit_lm(model, rows, QUICK)
    layer = model.blocks[1].feed
    assert layer.bias.abs().max() > 0 and layer.load.sum() == 0


def test_attention_beyond_documents_is_a_setting(rows):
    one, other = (
        fit_lm(llama(), rows, LMSettings(steps=1, batch=4, within=w)).history[0] for w in (True, False)
    )
    assert one["loss"] != other["loss"]


def test_bfloat16_is_near_float32(rows):
    found = [
        fit_lm(helm_d(), rows, LMSettings(steps=4, batch=4, bf16=on)).history[-1]["loss"]
        for on in (False, True)
    ]
    assert found[0] != found[1] and found[0] == pytest.approx(found[1], rel=0.03)


def test_nonsense_is_refused(rows):
    for changes in (
        {"steps": -1}, {"batch": 0}, {"accumulate": 3}, {"lr": 0.0}, {"warmup": 2.0}, {"spike": math.nan}
    ):  # fmt: skip
        with pytest.raises(ParameterError, match=next(iter(changes))):
            LMSettings(**changes)
    with pytest.raises(DataError, match="ids are from 0 to 4"):
        fit_lm(LlamaTwin(TwinConfig(**SMALL | {"vocab_size": 5})), rows)
    with pytest.raises(ParameterError, match="7 tokens, the context"):
        fit_lm(LlamaTwin(TwinConfig(**SMALL | {"context": 7})), rows)
    with pytest.raises(DataError, match="at least one row"):
        evaluate(llama(), text.Rows(rows.ids[:0], rows.documents[:0], 0))


SCRIPT = """
import sys, torch, numpy as np
sys.path.insert(0, {folder!r})
import test_lm as t
from workbench.data import text
documents = [list(range(1 + i % 5, 5 + i % 5 + i % 3)) for i in range(40)]
rows = text.Rows(*text.packed(documents, 8), 1)
model = t.helm_mice()
fit = t.fit_lm(model, rows, t.LMSettings(steps=3, batch=4, accumulate=2, lr=1e-2), report=1)
import os
if os.environ.get("RANK", "0") == "0":
    torch.save([t.weights(model), [row["loss"] for row in fit.history]], {out!r})
if torch.distributed.is_initialized():  # its threads would otherwise race the end of the process
    torch.distributed.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_train_as_one_does(tmp_path):
    pytest.importorskip("accelerate")
    folder = os.path.dirname(__file__)
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    results = []
    for world in (1, 2):
        out = str(tmp_path / f"{world}.pt")
        script = SCRIPT.format(folder=folder, out=out)
        several = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        several |= {"ACCELERATE_USE_CPU": "true", "LOCAL_WORLD_SIZE": "2"}
        running = [
            subprocess.Popen(
                [sys.executable, "-c", script],
                env=os.environ | {"OMP_NUM_THREADS": "1"}
                | (several | {"RANK": str(rank), "LOCAL_RANK": str(rank)} if world == 2 else {}),
                stderr=subprocess.PIPE,
                text=True,
            )
            for rank in range(world)
        ]  # fmt: skip
        for process in running:
            _, errors = process.communicate(timeout=200)
            assert process.returncode == 0, errors
        results.append(torch.load(out))
    torch.testing.assert_close(*results, rtol=1e-3, atol=2e-4)


def test_sharded_parameters_are_refused_before_anything_is_built(monkeypatch):
    pytest.importorskip("accelerate")
    for name, value in (("WORLD_SIZE", "2"), ("ACCELERATE_USE_FSDP", "true")):
        monkeypatch.setenv(name, value)
    with pytest.raises(ParameterError, match=r"FSDP.*--multi_gpu"):
        Devices("cpu")
