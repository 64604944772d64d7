"""Made-up sessions on a tree of categories, as plain arrays; `interactions.synthetic` is their public face."""

from __future__ import annotations

from string import ascii_lowercase

import numpy as np

from workbench.data._graph import Ints


def leaf_paths(branching: int, depth: int) -> list[tuple[str, ...]]:
    """The way to each leaf of the complete tree: ("b", "ba", "bac"), say."""
    words = [""]
    for _ in range(depth):
        words = [word + letter for word in words for letter in ascii_lowercase[:branching]]
    return [tuple(word[: level + 1] for level in range(depth)) for word in words]


def draw_sessions(
    lengths: Ints, leaf: Ints, branching: int, depth: int, strength: float, weights: np.ndarray, seed: int
) -> tuple[Ints, Ints]:
    """Users and items, one row an interaction, each user's in order and without repeats.

    Args:
        lengths: (n_users,) how many items each user takes.
        leaf: (n_items,) ascending, the leaf of each item.
        weights: (n_items,) popularities, > 0.
    """
    rng = np.random.default_rng(seed)
    free = np.tile(weights, (len(lengths), 1))  # popularity of what a user has not taken yet
    taken = np.full((len(lengths), lengths.max()), -1, dtype=np.int64)
    for step in range(lengths.max()):
        u = np.flatnonzero(lengths > step)
        up = np.minimum(
            rng.geometric(0.5, len(u)) - 1, depth
        )  # levels to climb: half stay, a quarter climb one
        up[rng.random(len(u)) >= strength] = depth
        if step == 0:
            up[:] = depth
        mass = np.concatenate([np.zeros((len(u), 1)), free[u].cumsum(axis=1)], axis=1)
        rows, here = np.arange(len(u)), leaf[taken[u, step - 1]]
        while True:
            low, high = _span(leaf, here, branching**up)
            room = mass[rows, high] - mass[rows, low]
            if (room > 0).all():
                break
            up[room <= 0] += 1  # all below that node is taken: climb further
        aim = mass[rows, low] + room * rng.random(len(u)) * (1 - 1e-12)
        pick = (mass[:, 1:] <= aim[:, None]).sum(axis=1)
        free[u, pick] = 0
        taken[u, step] = pick
    kept = taken >= 0
    return np.nonzero(kept)[0], taken[kept]


def _span(leaf: Ints, here: Ints, size: Ints) -> tuple[Ints, Ints]:
    """First and last + 1 of the items whose leaf is in the same block of `size` leaves as `here`."""
    block = here // size
    return np.searchsorted(leaf, block * size), np.searchsorted(leaf, (block + 1) * size)
