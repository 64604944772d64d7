"""Where the training of an embedding starts: tangent vectors at the origin, one a node.

From a random cloud of points the same training ends in a state where some nodes are walled off from their ancestors
(the mean rank shows it); a start in which the families already lie together does not.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from workbench.errors import ParameterError
from workbench.manifolds import PoincareBall
from workbench.models.poincare_embedding import EmbeddingConfig
from workbench.models.sarkar import sarkar


def _median_length(v: Tensor) -> Tensor:
    """Median length of vectors; of those that are not zero where most are (a hierarchy of mostly single nodes)."""
    length = v.norm(dim=-1)
    median = length.median()
    if median > 0:
        return median
    return length[length > 0].median() if (length > 0).any() else length.new_ones(())


def branching_walk(
    h, dim: int, radius: float, decay: float, generator: torch.Generator
) -> Float[Tensor, "n dim"]:
    """Tangent vectors at the origin from a random walk down the hierarchy: a child is the mean of its parents plus a
    normal step, steps shrinking by `decay` a level; scaled to the median length `radius`.
    """
    parent, child = torch.from_numpy(np.array(h.edges)).unbind(1)
    level = torch.zeros(len(h), dtype=torch.int64)  # length of the longest way up: every parent comes first
    for _ in range(len(h)):
        below = torch.zeros_like(level).scatter_reduce(0, child, level[parent] + 1, "amax")
        if torch.equal(below, level):
            break
        level = below
    step = torch.randn(len(h), dim, generator=generator, dtype=torch.float64)
    walk = torch.zeros_like(step)
    parents = torch.bincount(child, minlength=len(h)).clamp_min(1).unsqueeze(1)
    for k in range(1, int(level.max()) + 1):
        rows, edges = (level == k).nonzero().squeeze(1), (level[child] == k).nonzero().squeeze(1)
        mean = torch.zeros_like(walk).index_add_(0, child[edges], walk[parent[edges]]) / parents
        walk[rows] = mean[rows] + decay**k * step[rows]
    usual, spread = _median_length(walk), bool(walk.norm(dim=-1).median() > 0)
    walk = walk + 0.01 * usual * torch.randn(walk.shape, generator=generator, dtype=torch.float64)
    return walk * (radius / (_median_length(walk) if spread else usual))


def wedges(h, dim: int = 2) -> Float[Tensor, "n 2"]:
    """Polar coordinates by leaf counts: a node's wedge of the disk is divided among its children in proportion to
    their leaves, the largest in the middle, and a node stands on the axis of its wedge where the wedge is about as
    wide as one neighbour's distance, log(2π / angle), and 0.3 further out a level.

    Only in the plane does an order of the leaves fix the directions; ParameterError for dim other than 2.
    """
    if dim != 2:
        raise ParameterError(f"the wedge start is for 2 dimensions, but came with dim={dim}")
    parent, depth = np.array(h.spanning_tree()), np.array(h.depth)
    downward = np.argsort(depth, kind="stable")
    children: list[list[int]] = [[] for _ in range(len(h))]
    leaves = np.zeros(len(h))
    for i in downward[::-1]:
        leaves[i] = sum(leaves[k] for k in children[i]) or 1.0
        if parent[i] >= 0:
            children[parent[i]].append(int(i))
    start, angle = np.zeros(len(h)), np.zeros(len(h))

    def divide(nodes: list[int], at: float, width: float) -> None:
        nodes = sorted(nodes, key=lambda k: (-leaves[k], k))
        share = width / sum(leaves[k] for k in nodes)
        for k in nodes[::2][::-1] + nodes[1::2]:
            start[k], angle[k] = at, share * leaves[k]
            at += angle[k]

    divide(np.flatnonzero(parent < 0).tolist(), 0.0, 2 * np.pi)
    for i in downward:
        if children[i]:
            divide(children[i], start[i], angle[i])
    radius = np.log(2 * np.pi / angle) + 0.3 * depth
    axis = start + angle / 2
    return torch.from_numpy(radius[:, None] * np.stack([np.cos(axis), np.sin(axis)], 1))


def initial_points(h, manifold, config: EmbeddingConfig, generator: torch.Generator) -> Tensor:
    """Where training starts: (N, ambient) float64 points; see `EmbeddingConfig.init`."""
    if config.init == "random":
        v = 2e-3 * (torch.rand(len(h), config.dim, generator=generator, dtype=torch.float64) - 0.5)
    elif config.init == "wedge":
        v = wedges(h, config.dim)
    elif config.init == "walk":
        v = branching_walk(h, config.dim, config.init_radius, config.init_decay, generator)
    else:
        ball = PoincareBall()
        v = ball.to_tangent(sarkar(h, dim=config.dim, lengths="size", manifold=ball, seed=config.seed))
        v = v * (config.init_radius / _median_length(v))
    return manifold.from_tangent(v)
