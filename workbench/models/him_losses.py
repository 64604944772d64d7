"""What HiM is trained with, and the score it is read with: pure functions of points.

All distances, margins and scores are in unit curvature: lengths times √c, so that the same numbers mean the same in
every curvature; flat space, which has no unit of its own, is measured as it is. The manifold is the one the points
lie on. Shapes: child and parent (n, k) or broadcastable, wrong (n, m, k) with m wrong parents a child.

*Hierarchical Mamba* (HiM, arXiv 2505.18973); the clustering and the linear centripetal loss are those of
*Language Models as Hierarchy Encoders* (HiT, NeurIPS 2024).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.errors import ParameterError, suggest

CENTRIPETAL = ("linear", "log")
LOSSES = ("triplet", "contrastive")
TINY = 1e-7  # added within the logarithm, so that a radius of 0 has one


def unit(manifold) -> Tensor:
    """√c, by which lengths are multiplied to be in unit curvature; 1 in flat space. Differentiable in a learned c."""
    c = manifold.c
    return torch.where(c > 0, c, 1.0).sqrt()


def distance(manifold, x: Float[Tensor, "*n k"], y: Float[Tensor, "*n k"]) -> Float[Tensor, "*n"]:
    """Distance in unit curvature."""
    return unit(manifold) * manifold.dist(x, y)


def radius(manifold, x: Float[Tensor, "*n k"]) -> Float[Tensor, "*n"]:
    """Distance from the origin in unit curvature."""
    return unit(manifold) * manifold.dist0(x)


def subsumption(
    manifold, child: Float[Tensor, "*n k"], parent: Float[Tensor, "*n k"], lam: float
) -> Float[Tensor, "*n"]:
    """d(child, parent) + lam (d0(parent) - d0(child)): the lower, the surer that child is a kind of parent."""
    rise = radius(manifold, parent) - radius(manifold, child)
    return distance(manifold, child, parent) + lam * rise


def clustering(
    manifold,
    child: Float[Tensor, "n k"],
    parent: Float[Tensor, "n k"],
    wrong: Float[Tensor, "n m k"],
    margin: float,
) -> Float[Tensor, ""]:
    """Mean of max(0, d(child, parent) - d(child, wrong) + margin) over all wrong parents."""
    right = distance(manifold, child, parent).unsqueeze(-1)
    return (right - _to_wrong(manifold, child, wrong) + margin).relu().mean()


def centripetal(
    manifold, child: Float[Tensor, "n k"], parent: Float[Tensor, "n k"], margin: float, kind: str = "linear"
) -> Float[Tensor, ""]:
    """Mean of max(0, f(d0(parent)) - f(d0(child)) + margin): a child lies further out than its parent.

    kind: "linear", f(r) = r, by a distance (HiT); "log", f(r) = log(r + 1e-7), by a factor exp(margin) (HiM), whose
    margin has no unit. ParameterError for another kind.
    """
    if kind not in CENTRIPETAL:
        raise ParameterError(
            f"centripetal must be one of {', '.join(CENTRIPETAL)}, but came as {kind!r}{suggest(kind, CENTRIPETAL)}"
        )
    inner, outer = radius(manifold, parent), radius(manifold, child)
    if kind == "log":
        inner, outer = (inner + TINY).log(), (outer + TINY).log()
    return (inner - outer + margin).relu().mean()


_outward = centripetal  # `him_loss` has an argument of that name


def contrastive(
    manifold,
    child: Float[Tensor, "n k"],
    parent: Float[Tensor, "n k"],
    wrong: Float[Tensor, "n m k"],
    near: float,
    far: float,
) -> Float[Tensor, ""]:
    """Mean of max(0, d(child, parent) - near) plus mean of max(0, far - d(child, wrong)).

    Two means, so that the balance does not depend on how many wrong parents a child has. ParameterError unless
    0 <= near < far.
    """
    if not 0 <= near < far:
        raise ParameterError(f"near and far must satisfy 0 <= near < far, but came as {near!r} and {far!r}")
    pull = (distance(manifold, child, parent) - near).relu().mean()
    return pull + (far - _to_wrong(manifold, child, wrong)).relu().mean()


def _to_wrong(manifold, child: Tensor, wrong: Tensor) -> Tensor:
    if wrong.ndim != child.ndim + 1 or wrong.shape[:-2] != child.shape[:-1]:
        raise ParameterError(
            f"wrong parents must be (n, m, k) for children (n, k), but came as {tuple(wrong.shape)} "
            f"for {tuple(child.shape)}"
        )
    return distance(manifold, child.unsqueeze(-2), wrong)


def him_loss(
    manifold,
    child: Float[Tensor, "n k"],
    parent: Float[Tensor, "n k"],
    wrong: Float[Tensor, "n m k"],
    *,
    loss: str = "triplet",
    margin: float = 2.0,
    beta: float = 0.2,
    centripetal: str = "linear",
    near: float = 1.0,
    far: float | None = None,
    weight: float = 1.0,
) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
    """The whole loss, and its two parts by name: total = clustering (or contrastive) + weight · centripetal.

    loss: "triplet", clustering by `margin`; or "contrastive" with `near` and `far` (near + margin if not given).
    beta, centripetal: margin and form of the centripetal loss. The published setting is margin 0.255, beta 0.0051,
    "log"; 2, 0.2 and "linear" make real use of the curvature. ParameterError for another loss or kind.
    """
    if loss not in LOSSES:
        raise ParameterError(
            f"loss must be one of {', '.join(LOSSES)}, but came as {loss!r}{suggest(loss, LOSSES)}"
        )
    if loss == "triplet":
        name, first = "clustering", clustering(manifold, child, parent, wrong, margin)
    else:
        far = near + margin if far is None else far
        name, first = "contrastive", contrastive(manifold, child, parent, wrong, near, far)
    second = _outward(manifold, child, parent, beta, centripetal)
    return first + weight * second, {name: first, "centripetal": second}
