"""State dicts of the released HELM-D, under their own names, as a `HELM`.

What differs: three matrices for queries, keys and values, and two of the SwiGLU, are one each here; HoPE pairs
neighbouring coordinates there and halves here, a reordering of the rows of two matrices; positive numbers are held by
their logarithm; the additive β of attention and the unused weights of a position embedding have no effect and are
dropped. The released k is 1/c.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from workbench.errors import CheckpointError
from workbench.models.helm import HELM
from workbench.models.helm_config import HELMConfig

# What the released model holds besides its weights, or holds without effect.
_IDLE = ("attn_mask", "freqs_complex", ".attn.bias", ".k", ".c")


def from_released(state: Mapping[str, Tensor], heads: int, context: int = 2048) -> HELM:
    """A model with the weights of a released HELM-D, in eval mode.

    Args:
        state: its state dict, in memory (a prefix "module." of all names is taken off).
        heads: of attention, 6 at 115M; the names do not tell. context: most tokens of a sequence.

    Raises:
        CheckpointError: naming what is missing, left over, of another shape, or not positive where it must be.
    """
    left = {name.removeprefix("module."): t for name, t in state.items()}
    curvature = {float(t) for name, t in left.items() if name.endswith(".k") and t.numel() == 1}
    if len(curvature) > 1:
        raise CheckpointError(f"all spaces of HELM-D should have one curvature, but k came as {curvature}")
    left = {name: t for name, t in left.items() if not name.endswith(_IDLE) and "add_pos." not in name}

    def take(name: str) -> Tensor:
        if name not in left:
            raise CheckpointError(f"the state dict should have {name}, but has no such tensor")
        return left.pop(name)

    embedding = take("token_embed.embedding")
    config = HELMConfig(
        vocab_size=embedding.shape[0],
        dim=embedding.shape[1] - 1,
        layers=len({name.split(".")[1] for name in left if name.startswith("resblocks.")}),
        heads=heads,
        head_dim=_head_dim(left, heads),
        hidden=len(left.get("resblocks.0.mlp.w1.linear.bias", ())) or 1,
        context=context,
        c=1 / curvature.pop() if curvature else 1.0,
        embedding="points",
    )
    ours = {"embedding.weight": embedding, "head.weight": take("mapping.weight")}
    ours |= {"norm.weight": take("ln_final.weight")}
    ours |= {f"last.{kind}": take(f"final_proj.linear.{kind}") for kind in ("weight", "bias")}
    for i in range(config.layers):
        ours |= {f"blocks.{i}.{name}": t for name, t in _block(f"resblocks.{i}.", take, config).items()}
    if left:
        raise CheckpointError(f"the state dict has {len(left)} tensors too many, first {sorted(left)[0]}")
    model = HELM(config)
    try:
        missing = model.load_state_dict({k: v.detach().float() for k, v in ours.items()}, strict=False)
    except RuntimeError as e:
        raise CheckpointError(f"the state dict does not fit {config}: {e}") from e
    assert not missing.unexpected_keys
    return model.eval()


def _head_dim(left: Mapping[str, Tensor], heads: int) -> int:
    rows = len(left.get("resblocks.0.attn.Wq.bias", ()))
    if not rows or rows % (2 * heads):
        raise CheckpointError(
            f"resblocks.0.attn.Wq should have an even number of rows for each of {heads} heads, but has {rows}"
        )
    return rows // heads


def _block(at: str, take, config: HELMConfig) -> dict[str, Tensor]:
    """Tensors of one block by our names."""
    ours = {
        "attention_norm.weight": take(at + "ln_1.weight"),
        "feed_norm.weight": take(at + "ln_2.weight"),
        "attention.log_temperature": _log(take(at + "attn.scale"), at + "attn.scale"),
        "attention_residual.log_weight": _log(take(at + "res1.w_y"), at + "res1.w_y"),
        "feed_residual.log_weight": _log(take(at + "res2.w_y"), at + "res2.w_y"),
    }
    for kind in ("weight", "bias"):
        q, k, v = (take(f"{at}attn.W{part}.{kind}") for part in "qkv")
        ours[f"attention.qkv.{kind}"] = torch.cat([_halves(q, config), _halves(k, config), v])
        ours[f"attention.out.{kind}"] = take(f"{at}attn.final_linear.{kind}")
        gate, up = take(f"{at}mlp.w1.linear.{kind}"), take(f"{at}mlp.w3.linear.{kind}")
        ours[f"feed.gate_up.{kind}"] = torch.cat([gate, up])
        ours[f"feed.down.{kind}"] = take(f"{at}mlp.w2.linear.{kind}")
    return ours


def _halves(rows: Tensor, config: HELMConfig) -> Tensor:
    """Rows of every head in the order 0, 2, 4, .., 1, 3, 5, ..: neighbours come to stand half a head apart."""
    pairs = rows.unflatten(0, (config.heads, config.head_dim // 2, 2))
    return pairs.transpose(1, 2).flatten(0, 2)


def _log(value: Tensor, name: str) -> Tensor:
    if not bool((value > 0).all()):
        raise CheckpointError(f"{name} must be positive, but is {value.flatten().tolist()}")
    return value.log().reshape(())
