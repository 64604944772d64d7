"""Any embedding as a `DiskView`. More than two dimensions are drawn as a shadow, and what that keeps is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from workbench.data import embeddings, wordnet
from workbench.data.embeddings import Embedding
from workbench.manifolds import make
from workbench.manifolds.planar import plane_of
from workbench.models.poincare_embedding import PoincareEmbedding
from workbench.widgets.colours import levels
from workbench.widgets.disk import DiskView, Near

FAR = 3.0  # radius within which 99 % of flat points are drawn
NEAREST = 10


def opened(path: str | Path = "wordnet", *, size: int = 640, **options: Any) -> tuple[DiskView, str]:
    """A view of the embedding in a file, and a sentence about what is drawn.

    path: see `data.embeddings.read`, which also takes the options (labels, edges, space, c); or "wordnet": all 82,115
    nouns on the shipped disk.
    """
    if str(path) == "wordnet":
        nouns = wordnet.nouns()
        view = DiskView.of(nouns, PoincareEmbedding.pretrained("wordnet-2d").points, size=size)
        return view, f"All {len(nouns):,} nouns of WordNet, trained in two dimensions: nothing is left out."
    found = embeddings.read(path, **options)
    points, told = shadow(found)
    parents, color, title = None, _radius(found), "distance from the centre"
    if found.edges is not None:
        parents = np.full(len(points), -1)
        for parent, child in found.edges[::-1]:  # the first parent that is named counts
            parents[child] = parent
        color, title = levels(parents).astype(float), "depth"
    about = dict(labels=found.labels, parents=parents, color=color, color_title=title, size=size)
    dim = found.points.shape[1] - (found.space == "lorentz")
    if dim > 2 or found.space == "euclidean":
        about |= dict(
            near=_nearest(found), metric=f"in {dim} {'flat ' * (found.space == 'euclidean')}dimensions"
        )
    return DiskView(points, edges=found.edges, **about), f"{found.name}: {len(points):,} points, {told}"


def _nearest(found: Embedding) -> Near:
    """Who is nearest in the embedding's own space, whatever its shadow on the disk says."""
    manifold = make("euclidean") if found.space == "euclidean" else make(found.space, c=found.c)
    x = torch.from_numpy(found.points)

    def near(i: int) -> tuple[list[int], list[float]]:
        gaps = manifold.dist(x[i : i + 1], x)
        gaps[i] = torch.inf
        found = gaps.topk(min(NEAREST, len(x) - 1), largest=False)
        return found.indices.tolist(), found.values.tolist()

    return near


def _radius(found: Embedding) -> Float[np.ndarray, " n"]:
    """How far each point lies from the origin of its space, or from the mean of flat points: in all dimensions."""
    if found.space == "euclidean":
        return np.linalg.norm(found.points - found.points.mean(0), axis=1)
    manifold, x = make(found.space, c=found.c), torch.from_numpy(found.points)
    origin = torch.zeros_like(x[:1])
    if found.space == "lorentz":
        origin[0, 0] = found.c**-0.5
    return manifold.dist(origin, x).numpy()


def shadow(found: Embedding) -> tuple[Float[np.ndarray, "n 2"], str]:
    """Points of the unit disk, and how they came about.

    Hyperbolic points: of two dimensions, as they are; of more, their shadows on the best plane through the origin
    (`manifolds.planar`). Flat points have no place on the disk: their first two principal components are taken as a
    tangent vector at its centre, so that directions and the order of radii are theirs and distances are not.
    """
    if found.space == "euclidean":
        return _flat(found.points)
    manifold, x = make(found.space, c=found.c), torch.from_numpy(found.points)
    dim = x.shape[1] - (found.space == "lorentz")
    plane = plane_of(manifold, x)
    if dim == 2:
        return plane.ball(x), f"the hyperbolic plane of c = {found.c:g} itself."
    plane = plane.stretched(x)
    kept = f"; {100 * plane.kept(x, NEAREST):.0f} % of each point's {NEAREST} nearest stay so" * (
        len(x) > NEAREST
    )
    longer = f", radii drawn {plane.stretch:.2f} times as long" * (plane.stretch > 1)
    return plane.ball(
        x
    ), f"shadows of {dim} hyperbolic dimensions (c = {found.c:g}) on a plane{longer}{kept}."


def _flat(x: Float[np.ndarray, "n k"]) -> tuple[Float[np.ndarray, "n 2"], str]:
    middle = x - x.mean(0)
    _, s, axes = np.linalg.svd(middle, full_matrices=False)
    largest = np.take_along_axis(axes, np.abs(axes).argmax(1)[:, None], 1)  # signs are free: fixed here
    flat = middle @ (axes * np.sign(largest))[:2].T
    share = float(np.square(s[:2]).sum() / max(np.square(s).sum(), 1e-300))
    radius = np.linalg.norm(flat, axis=1, keepdims=True)
    unit = FAR / max(float(np.quantile(radius, 0.99)), 1e-300)
    drawn = np.tanh(np.minimum(radius * unit, 4 * FAR) / 2) * flat / np.maximum(radius, 1e-300)
    told = f"flat, {x.shape[1]} dimensions: two principal components with {100 * share:.0f} % of the variance"
    return drawn, f"{told}, put on the disk as a tangent vector at its centre; distances are not kept."
