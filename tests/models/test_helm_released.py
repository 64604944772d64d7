"""A state dict under the released names gives the released model: formulas with complex rotation, all coordinates."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from workbench.errors import CheckpointError
from workbench.models.helm_released import from_released

V, W, HEADS, LAYERS, I = 17, 10, 2, 2, 40
h = W // HEADS


def released(seed: int = 0) -> dict[str, torch.Tensor]:
    """Random weights with the names and shapes of the released HELM-D of width 10, its idle tensors included."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator) / 3

    point = draw(V, W - 1)
    state = {
        "token_embed.embedding": torch.cat([(1 + point.square().sum(-1, keepdim=True)).sqrt(), point], -1),
        "token_embed.add_pos.w_y": draw(),
        "manifold_hidden.k": torch.tensor(1.0),
        "ln_final.weight": 1 + draw(W - 1),
        "final_proj.linear.weight": draw(W - 1, W),
        "final_proj.linear.bias": draw(W - 1),
        "mapping.weight": draw(V, W),
        "attn_mask": torch.ones(8, 8).triu(1).bool(),
        "freqs_complex": torch.ones(8, 2, dtype=torch.complex64),
    }
    for i in range(LAYERS):
        at = f"resblocks.{i}."
        for name in ("Wq", "Wk", "Wv"):
            state |= {
                f"{at}attn.{name}.weight": draw(HEADS * (h - 1), W),
                f"{at}attn.{name}.bias": draw(HEADS * (h - 1)),
            }
        for name, rows, columns in (("w1", I - 1, W), ("w2", W - 1, I), ("w3", I - 1, W)):
            state |= {
                f"{at}mlp.{name}.linear.weight": draw(rows, columns),
                f"{at}mlp.{name}.linear.bias": draw(rows),
            }
        state |= {
            f"{at}attn.final_linear.weight": draw(W - 1, W),
            f"{at}attn.final_linear.bias": draw(W - 1),
            f"{at}attn.scale": torch.tensor([2.0 + i]),
            f"{at}attn.bias": draw(),
            f"{at}ln_1.weight": 1 + draw(W - 1),
            f"{at}ln_2.weight": 1 + draw(W - 1),
            f"{at}res1.w_y": torch.tensor(0.7),
            f"{at}res2.w_y": torch.tensor(1.3),
        }
    return state


def lifted(x):
    return torch.cat([(1 + x.square().sum(-1, keepdim=True)).sqrt(), x], -1)


def onto(z):
    return z / (z[..., :1] ** 2 - z[..., 1:].square().sum(-1, keepdim=True)).sqrt()


def norm(x, weight):
    return lifted(x[..., 1:] / (x[..., 1:].square().mean(-1, keepdim=True) + 1e-8).sqrt() * weight)


def turned(x):
    """(L, heads, h-1): neighbours as complex numbers, by their position's angles."""
    angles = 10000 ** (-torch.arange(0, h - 1, 2).double() / (h - 1))
    angles = torch.arange(len(x)).double()[:, None] * angles
    z = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(z * torch.polar(torch.ones_like(angles), angles)[:, None]).flatten(-2)


def logits(state: dict[str, torch.Tensor], ids: torch.Tensor) -> torch.Tensor:
    """The released forward pass on one sequence, written from its formulas in float64."""
    p = {name: t.double() if t.is_floating_point() else t for name, t in state.items()}

    def linear(x, name):
        return x @ p[name + ".weight"].T + p[name + ".bias"]

    x = p["token_embed.embedding"][ids]
    for i in range(LAYERS):
        at = f"resblocks.{i}."
        y = norm(x, p[at + "ln_1.weight"])
        q, k, v = (linear(y, f"{at}attn.W{n}").unflatten(-1, (HEADS, h - 1)) for n in "qkv")
        q, k, v = (lifted(z).transpose(0, 1) for z in (turned(q), turned(k), v))
        inner = q[..., 1:] @ k[..., 1:].mT - q[..., :1] @ k[..., :1].mT
        scores = (2 + 2 * inner) / p[at + "attn.scale"] + p[at + "attn.bias"]
        a = scores.masked_fill(torch.ones(len(ids), len(ids)).triu(1).bool(), -1e18).softmax(-1)
        y = lifted(linear(onto(a @ v).transpose(0, 1).flatten(-2), at + "attn.final_linear"))
        x = lifted(4 * math.sqrt(W) * onto(x + p[at + "res1.w_y"] * y)[..., 1:])
        y = norm(x, p[at + "ln_2.weight"])
        hidden = lifted(F.silu(linear(y, at + "mlp.w1.linear")) * linear(y, at + "mlp.w3.linear"))
        y = lifted(linear(hidden, at + "mlp.w2.linear"))
        x = lifted(4 * math.sqrt(W) * onto(x + p[at + "res2.w_y"] * y)[..., 1:])
    x = norm(lifted(linear(x, "final_proj.linear")), p["ln_final.weight"])
    return x @ p["mapping.weight"].T


@pytest.mark.parametrize("prefix", ["", "module."])
def test_released_weights_give_the_released_logits(prefix):
    state = released()
    model = from_released({prefix + name: t for name, t in state.items()}, HEADS, context=32)
    ids = torch.randint(0, V, (9,), generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(model.double()(ids[None])[0], logits(state, ids), rtol=1e-5, atol=1e-5)
    assert model.generate([[1, 2, 3]], 4)


def test_another_curvature_is_read_from_k():
    assert from_released(released() | {"manifold_hidden.k": torch.tensor(2.0)}, HEADS).config.c == 0.5


@pytest.mark.parametrize(
    "change, heads, match",
    [
        ({"mapping.weight": None}, 2, "should have mapping.weight"),
        ({"resblocks.1.res2.w_y": None}, 2, r"should have resblocks.1.res2.w_y"),
        ({"resblocks.1.res2.w_y": torch.tensor(-0.1)}, 2, r"res2.w_y must be positive, but is \[-0.1"),
        ({"more.weight": torch.ones(2)}, 2, "1 tensors too many, first more.weight"),
        ({"mapping.weight": torch.ones(3, 3)}, 2, "does not fit"),
        ({"manifold_in.k": torch.tensor(3.0)}, 2, "one curvature"),
        ({}, 3, "for each of 3 heads, but has 8"),
    ],
)
def test_what_does_not_fit_is_named(change, heads, match):
    state = {name: t for name, t in (released() | change).items() if t is not None}
    with pytest.raises(CheckpointError, match=match):
        from_released(state, heads)
