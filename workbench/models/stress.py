"""Embedding a metric by its distances, in any of the spaces: a spectral start, then least relative stress.

The start is classical scaling (Torgerson 1952) in flat space and its exact analogue in curved space, hydra
(Keller-Ressel, Nargang 2020): distances become inner products, d² by double centring, cosh(√c d) as they are,
and the leading eigenvectors are coordinates. The refinement is the same in all spaces: L-BFGS in tangent
vectors at the points themselves, so that neither a learning rate nor a far-out point favours one of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import minimize
from torch import Tensor

from workbench.errors import ParameterError
from workbench.threads import one_thread

_FLATTEST = 1e-6  # √c·diameter below which cosh(√c d) - 1 is only rounding
ROUND = 40  # iterations after which the frames move to where the points have gone
_STEEPEST = 300.0  # √c·diameter above which cosh overflows where it is squared


def stress(points: Float[Tensor, "n k"], manifold, distances: Float[Tensor, "n n"]) -> Tensor:
    """Mean over pairs of (d_embedded/d - 1)², differentiable; 0 for an isometry, 1 for a single point."""
    off = ~torch.eye(len(distances), dtype=torch.bool, device=distances.device)
    ratio = manifold.cdist(points, points, exact=True) / torch.where(off, distances, 1.0)
    return torch.where(off, ratio - 1, 0.0).square().sum() / off.sum()


def spectral_embedding(distances: Float[Tensor, "n n"], manifold, dim: int) -> Float[Tensor, "n k"]:
    """Points (N, ambient) from the eigenvectors of the distances: exact where an exact embedding exists.

    distances: symmetric, finite, positive off the diagonal; in the manifold's distance.
    Raises ParameterError for another matrix, for fewer than 1 or more than N - 1 dimensions, and where √c
    times the diameter exceeds 300, beyond which cosh overflows.
    """
    d = _checked(distances, dim)
    n, c = len(d), float(manifold.c)
    reach = c**0.5 * float(d.max())
    if reach > _STEEPEST:
        raise ParameterError(f"√c times the diameter must be at most {_STEEPEST:g}, but is {reach:.4g}")
    if reach < _FLATTEST:
        centre = torch.eye(n, dtype=d.dtype) - 1 / n
        values, vectors = torch.linalg.eigh(-centre @ d.square() @ centre / 2)
        return manifold.from_tangent(_coordinates(values.flip(0), vectors.flip(1), dim))
    # <x, y> = x0 y0 - cosh(√c d) for spatial parts; the top eigenvector of cosh is the time coordinate.
    values, vectors = torch.linalg.eigh(torch.cosh(c**0.5 * d))
    s = _coordinates(-values, vectors, dim)
    length = s.norm(dim=1, keepdim=True)
    return manifold.from_tangent(s / length.clamp_min(1e-300) * (length.asinh() / c**0.5))


def stress_embedding(
    distances: Float[Tensor, "n n"],
    manifold,
    dim: int,
    *,
    starts: Sequence[Tensor] = (),
    steps: int = 300,
    restarts: int = 0,
    seed: int = 0,
) -> Float[Tensor, "n k"]:
    """Float64 points (N, ambient) of least `stress` found: the best of a descent from each start.

    distances: as for `spectral_embedding`; the fit is to their absolute size: in curved space it decides how
    strongly the metric is felt. starts: points (N, ambient) to start from, besides the spectral ones.
    restarts: random starts besides. steps: most iterations of L-BFGS from each.
    Raises ParameterError as `spectral_embedding`, and for a start of another shape.
    """
    d = _checked(distances, dim)
    shape = (len(d), manifold.ambient_dim(dim))
    for start in starts:
        if tuple(start.shape) != shape:
            raise ParameterError(f"a start must be points of shape {shape}, but came as {tuple(start.shape)}")
    first = [spectral_embedding(d, manifold, dim), *(start.detach().to(torch.float64) for start in starts)]
    rng = torch.Generator().manual_seed(seed)
    spread = float(d.mean()) / (2 * dim) ** 0.5
    for _ in range(restarts):
        first.append(manifold.from_tangent(torch.randn(len(d), dim, generator=rng, dtype=d.dtype) * spread))
    with one_thread():
        return min((_descend(points, d, manifold, steps) for points in first), key=lambda found: found[0])[1]


def _descend(base: Tensor, d: Tensor, manifold, steps: int) -> tuple[float, Tensor]:
    """Rounds of L-BFGS in u, the points being base ⊕ from_tangent(u), orthonormal frames at each."""
    shape = (len(d), manifold.intrinsic_dim(base.shape[1]))

    def value_and_gradient(flat: np.ndarray) -> tuple[float, np.ndarray]:
        u = torch.from_numpy(flat).reshape(shape).requires_grad_()
        value = stress(manifold.add(base, manifold.from_tangent(u)), manifold, d)
        (gradient,) = torch.autograd.grad(value, u)
        return float(value.detach()), gradient.numpy().ravel()

    # Two equal points repel each other in no direction: a grain of noise parts them.
    rng = np.random.default_rng(0)
    u = rng.normal(size=shape[0] * shape[1]) * 1e-3 * float(d.min())
    value, done = float("inf"), 0
    while done < steps:
        options = dict(maxiter=min(ROUND, steps - done), maxfun=2 * ROUND, maxcor=20, ftol=1e-8, gtol=1e-8)
        found = minimize(value_and_gradient, u, jac=True, method="L-BFGS-B", options=options)
        base = manifold.add(base, manifold.from_tangent(torch.from_numpy(found.x).reshape(shape)))
        if value - found.fun < 1e-3 * found.fun:
            return found.fun, base
        value, done, u = found.fun, done + found.nit, np.zeros_like(u)
    return value, base


def _coordinates(values: Tensor, vectors: Tensor, dim: int) -> Tensor:
    """Eigenvectors of the first `dim` eigenvalues, scaled by their roots; 0 where one is negative."""
    return vectors[:, :dim] * values[:dim].clamp_min(0).sqrt()


def _checked(distances: Tensor, dim: int) -> Tensor:
    d = torch.as_tensor(distances).detach().to(torch.float64)
    if d.ndim != 2 or d.shape[0] != d.shape[1] or len(d) < 2:
        raise ParameterError(f"distances must be a square matrix of two or more, got shape {tuple(d.shape)}")
    off = ~torch.eye(len(d), dtype=torch.bool)
    if not (torch.isfinite(d).all() and torch.allclose(d, d.T) and (d[off] > 0).all()):
        raise ParameterError("distances must be finite, symmetric and positive off the diagonal")
    if isinstance(dim, bool) or not isinstance(dim, int) or not 1 <= dim < len(d):
        raise ParameterError(f"dim must be a number from 1 to {len(d) - 1}, but came as {dim!r}")
    return d
