import dataclasses

import numpy as np
import pytest
import torch

from workbench.data import interactions, trees, wordnet
from workbench.errors import CheckpointError, DataError, ParameterError
from workbench.evaluation.generation import hypernym_generation, hypernym_split, next_item_generation
from workbench.files import save_tensors
from workbench.models.multitoken import MultitokenConfig, beam_search
from workbench.training.multitoken import (
    MultitokenSettings,
    MultitokenTrainer,
    fit_multitoken,
    next_item_pairs,
)

TREE = trees.balanced(3, 4)
SPLIT = hypernym_split(TREE)
SHORT = MultitokenSettings(epochs=6, batch=64, lr=5e-3)


def paths(n=121, size=8):
    return torch.stack(
        [torch.arange(n) // size // size, torch.arange(n) // size % size, torch.arange(n) % size], 1
    )


def small(codes=None, **changes):
    return MultitokenConfig.for_codes(
        paths() if codes is None else codes, dim=16, heads=2, hidden=16, **changes
    )


def run(**changes):
    return fit_multitoken(SPLIT.train[:, 0], SPLIT.train[:, 1], paths(), small(), SHORT, **changes)


def state(fit):
    return fit.model.state_dict()


def test_an_interrupted_and_resumed_run_equals_an_uninterrupted_one(tmp_path):
    whole = run()

    def interrupt(trainer, loss):
        if trainer.epoch == 5:
            raise KeyboardInterrupt

    path = tmp_path / "run.safetensors"
    with pytest.raises(KeyboardInterrupt):
        run(checkpoint=path, checkpoint_every=2, on_epoch=interrupt)
    seen = []
    resumed = run(checkpoint=path, checkpoint_every=2, on_epoch=lambda t, loss: seen.append(t.epoch))
    assert seen == [5, 6] and resumed.losses == whole.losses
    assert all(torch.equal(state(resumed)[k], v) for k, v in state(whole).items())
    again = run(checkpoint=path)  # finished: nothing is done
    assert all(torch.equal(state(again)[k], v) for k, v in state(whole).items())


def test_a_seed_decides_everything_and_the_global_generator_is_left_alone():
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    first = run()
    assert torch.equal(torch.rand(1), expected)
    torch.manual_seed(2)
    assert run().losses == first.losses
    assert run(seed=1).losses != first.losses


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    path = tmp_path / "run.safetensors"
    run(checkpoint=path)
    for changes, what in (
        (dict(epochs=7), "settings"), (dict(seed=2), "settings"),
    ):  # fmt: skip
        with pytest.raises(CheckpointError, match=what):
            run(checkpoint=path, **changes)
    with pytest.raises(CheckpointError, match="data"):
        fit_multitoken(
            SPLIT.train[::-1, 0].copy(), SPLIT.train[::-1, 1].copy(), paths(), small(), SHORT, checkpoint=path
        )
    with pytest.raises(CheckpointError, match="config"):
        fit_multitoken(
            SPLIT.train[:, 0], SPLIT.train[:, 1], paths(), small(tied=True), SHORT, checkpoint=path
        )
    save_tensors(path, {"x": torch.zeros(1)}, {"kind": "other"})
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        run(checkpoint=path)


def test_an_epoch_sees_every_pair_once_and_keeps_a_sources_pairs_together():
    trainer = MultitokenTrainer(SPLIT.train[:, 0], SPLIT.train[:, 1], paths(), small(), SHORT)
    batches = list(trainer._batches(torch.Generator().manual_seed(0)))
    order = torch.cat(batches)
    assert torch.equal(order.sort().values, torch.arange(len(SPLIT.train)))
    sources = trainer.of_source[order]
    assert len(torch.unique_consecutive(sources)) == len(sources.unique())
    assert max(map(len, batches)) <= SHORT.batch and min(map(len, batches)) >= max(map(len, batches)) - 1


def test_a_step_is_adamw_on_the_mean_cross_entropy():
    """Against a plain loop over the pairs, one source a row, in float64 and without dropout."""
    config = small(dropout=0.0)
    settings = MultitokenSettings(epochs=1, batch=10_000, warmup=0.0, lr=1e-2)
    trainer = MultitokenTrainer(SPLIT.train[:, 0], SPLIT.train[:, 1], paths(), config, settings)
    trainer.model.double()
    twin = MultitokenTrainer(SPLIT.train[:, 0], SPLIT.train[:, 1], paths(), config, settings).model.double()
    optimizer = torch.optim.AdamW(twin.parameters(), lr=1e-2, weight_decay=0.01)
    losses = []
    for u, v in SPLIT.train.tolist():
        logits = twin(paths()[u][None, None], paths()[v][None])
        losses += [-z[0].log_softmax(0)[t] for z, t in zip(logits, paths()[v].tolist(), strict=True)]
    loss = torch.stack(losses).mean()
    loss.backward()
    optimizer.step()
    assert trainer.run_epoch() == pytest.approx(float(loss.detach()), rel=1e-9)
    for (name, p), q in zip(trainer.model.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-7, msg=name)


def test_the_rate_rises_once_and_falls_to_nothing():
    s = MultitokenSettings(lr=1.0, warmup=0.25)
    rates = [s.rate(i / 100) for i in range(101)]
    assert rates[0] == pytest.approx(1 / 25) and rates[25] == pytest.approx(1.0) and rates[100] == 0
    assert (np.diff(rates[:26]) > 0).all() and (np.diff(rates[25:]) < 0).all()


@pytest.mark.slow
def test_names_that_follow_the_tree_teach_its_hypernyms():
    h = wordnet.mammals()
    split = hypernym_split(h)
    fit = fit_multitoken(split.train[:, 0], split.train[:, 1], _prefix_names(h), epochs=12)
    result = hypernym_generation(fit.model, fit.trie, split)
    assert result.recall > result.composition + 0.1 > result.popularity


def _prefix_names(h):
    """Depth-first numbers, written with 11 digits: nodes near in the tree share their first digits."""
    tree, order, stack = h.spanning_tree(), [], [int(h.roots[0])]
    children = [np.flatnonzero(tree == i) for i in range(len(h))]
    while stack:
        order.append(stack.pop())
        stack += children[order[-1]].tolist()
    rank = torch.empty(len(h), dtype=torch.int64)
    rank[torch.tensor(order)] = torch.arange(len(h))
    return torch.stack([rank // 121, rank // 11 % 11, rank % 11], 1)


def test_next_items_of_a_cycle_are_learnt():
    """Users who walk through the items one by one: the next one is certain."""
    n, walks = 12, [[(u + t) % 12 for t in range(8)] for u in range(48)]
    users, items = np.repeat(np.arange(48), 8), np.concatenate(walks)
    data = interactions.Interactions.from_events(users, items)
    sources, targets = next_item_pairs(data, history=3)
    codes = torch.stack([torch.arange(n) // 4, torch.arange(n) % 4], 1)
    fit = fit_multitoken(sources, targets, codes, small(codes, history=3), epochs=40, batch=32, lr=1e-2)
    result = next_item_generation(fit.model, fit.trie, data, ks=(1,))
    assert result.recall[1] > 0.95 > 0.5 > result.popularity_recall[1]
    assert fit.losses[-1] < 0.2 * fit.losses[0] and not fit.model.training


def test_pairs_of_sequences_are_all_items_with_what_came_before():
    data = interactions.synthetic(n_users=12, n_items=90, branching=3, depth=2)
    sources, targets = next_item_pairs(data, history=4)
    expected = [(s[max(0, i - 4) : i].tolist(), int(s[i])) for s in data.train for i in range(1, len(s))]
    rows = [[i for i in row if i >= 0] for row in sources.tolist()]
    assert list(zip(rows, targets.tolist(), strict=True)) == expected


def test_fewer_pairs_an_epoch_are_a_random_part_of_them():
    settings = dataclasses.replace(SHORT, per_epoch=50)
    trainer = MultitokenTrainer(SPLIT.train[:, 0], SPLIT.train[:, 1], paths(), small(), settings)
    first, second = (torch.cat(list(trainer._batches(torch.Generator().manual_seed(i)))) for i in (0, 1))
    assert len(first) == len(second) == 50 and set(first.tolist()) != set(second.tolist())


def test_bf16_products_learn_too():
    fit = run(precision="bf16")
    assert fit.losses[-1] < fit.losses[0] and fit.model.tokens.dtype == torch.float32


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_learns_the_same_names():
    cpu = run()
    gpu = run(device="cuda")
    assert gpu.losses[-1] == pytest.approx(cpu.losses[-1], rel=0.2)
    found = beam_search(gpu.model, gpu.trie.tokens(torch.arange(5, device="cuda")[:, None]), gpu.trie, 4)
    assert found.items.shape == (5, 4)


def test_what_cannot_be_learnt_from_is_refused():
    pairs = SPLIT.train
    with pytest.raises(DataError, match="sources and targets"):
        fit_multitoken(pairs[:, 0], pairs[:-1, 1], paths())
    with pytest.raises(DataError, match="numbered"):
        fit_multitoken(pairs[:, 0], pairs[:, 1] + 1000, paths())
    with pytest.raises(DataError, match="padding"):
        fit_multitoken(pairs[:, 0], pairs[:, 1] * 0 - 1, paths())
    with pytest.raises(DataError, match="deduplicate"):
        fit_multitoken(pairs[:, 0], pairs[:, 1], paths()[:, :1])
    with pytest.raises(ParameterError, match="vocabularies"):
        fit_multitoken(pairs[:, 0], pairs[:, 1], paths(), MultitokenConfig((2, 8, 3)))
    with pytest.raises(ParameterError, match="did you mean 'epochs'"):
        fit_multitoken(pairs[:, 0], pairs[:, 1], paths(), epoch=3)
    with pytest.raises(ParameterError, match="lower lr"):
        run(lr=1e30)
    for bad in (dict(epochs=0), dict(lr=-1.0), dict(warmup=1.0), dict(precision="fp8"), dict(clip=-1)):
        with pytest.raises(ParameterError):
            MultitokenSettings(**bad)
    with pytest.raises(ParameterError, match="history"):
        next_item_pairs(interactions.synthetic(n_users=5, n_items=90, branching=3, depth=2), 0)
