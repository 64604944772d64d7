"""Exercises of lesson 3, trees and their room: length of a circle, distortion, a star's spokes, four points.

Right answers come from closed forms and from loops in plain Python over pairs and quadruples.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np

from workbench.lessons.checking import Exercise, function
from workbench.lessons.slips import slipped

RADIUS, CURVATURE = 10.0, 0.25  # of exercise 3.1
SPOKES, WORST = 8, 1.1  # of exercise 3.3


def room(radius: float, c: float) -> float:
    """Length of a circle in curvature -c over that of a flat circle of the same radius."""
    s = math.sqrt(c) * radius
    return math.sinh(s) / s


def worst_distortion(embedded: np.ndarray, true: np.ndarray) -> float:
    """Largest ratio embedded/true over the smallest, over all pairs of different points."""
    ratios = [embedded[i, j] / true[i, j] for i, j in combinations(range(len(true)), 2)]
    return max(ratios) / min(ratios)


def four_point_delta(d: np.ndarray) -> float:
    """Half of the largest difference between the two larger of the three sums, over all four points."""
    found = 0.0
    for w, x, y, z in combinations(range(len(d)), 4):
        _, middle, top = sorted((d[w, x] + d[y, z], d[w, y] + d[x, z], d[w, z] + d[x, y]))
        found = max(found, float(top - middle) / 2)
    return found


def spoke(leaves: int, worst: float) -> float:
    """Length of the equal spokes that draw a star in curvature -1 with this worst distortion, by halving.

    Leaves next to each other are 2 asinh(sinh ℓ · sin(π/leaves)) apart (law of sines in half their triangle),
    and 2ℓ in the star; the spokes themselves are drawn true.
    """
    low, high = 1e-9, 300.0
    for _ in range(200):
        middle = (low + high) / 2
        apart = math.asinh(math.sinh(middle) * math.sin(math.pi / leaves))
        low, high = (middle, high) if middle / apart > worst else (low, middle)
    return middle


def _matrices() -> list[tuple[np.ndarray]]:
    """Small metrics: weighted trees, cycles, points of a plane, and shortest ways in a random graph."""
    rng = np.random.default_rng(0)
    trees = [_tree(rng, n) for n in (5, 8)]
    cycles = [np.minimum(k, n - k) for n in (4, 7) for k in [abs(np.subtract.outer(range(n), range(n)))]]
    cloud = rng.normal(size=(7, 2))
    plane = np.linalg.norm(cloud[:, None] - cloud, axis=-1)
    found = [*trees, *(c.astype(float) for c in cycles), plane, _shortest(rng.uniform(1, 9, (7, 7)))]
    return [(d,) for d in found]


def _tree(rng: np.random.Generator, n: int) -> np.ndarray:
    """Distances of a random tree with edges of random length."""
    d = np.zeros((n, n))
    for v in range(1, n):
        d[v, :v] = d[:v, v] = d[rng.integers(v), :v] + rng.uniform(0.5, 2)
    return d


def _shortest(lengths: np.ndarray) -> np.ndarray:
    d = np.minimum(lengths, lengths.T)
    np.fill_diagonal(d, 0)
    for via in range(len(d)):
        d = np.minimum(d, d[:, [via]] + d[[via]])
    return d


def _embeddings() -> list[tuple[np.ndarray, np.ndarray]]:
    """Embedded and true distances; the second pair is the first in other units."""
    rng = np.random.default_rng(1)
    pairs = []
    for n in (5, 8):
        points = rng.normal(size=(n, 2))
        pairs.append((np.linalg.norm(points[:, None] - points, axis=-1), _tree(rng, n)))
    return [pairs[0], (7 * pairs[0][0], pairs[0][1]), pairs[1]]


def _compare(
    answer: Any, oracle: Callable, inputs: list[tuple], what: str, slips: list[tuple[Callable, str]]
):
    """As `function`; if the answer agrees with a known slip everywhere, that slip's sentence."""
    wrong = function(answer, oracle, inputs, what)
    agrees = (sentence for slip, sentence in slips if function(answer, slip, inputs, what) is None)
    return wrong and next(agrees, wrong)


def _off_diagonal(e: np.ndarray, t: np.ndarray) -> np.ndarray:
    pair = np.triu_indices(len(t), 1)
    return e[pair] / t[pair]


def _largest_sum_gap(d: np.ndarray) -> float:
    return max(
        max(s) - min(s)
        for w, x, y, z in combinations(range(len(d)), 4)
        for s in [(d[w, x] + d[y, z], d[w, y] + d[x, z], d[w, z] + d[x, y])]
    )


def _verify_room(answer: Any) -> str | None:
    s = math.sqrt(CURVATURE) * RADIUS
    slips = [
        (room(RADIUS, 1.0), "That is the ratio in curvature -1. Lengths are measured in units of 1/√c."),
        (
            room(RADIUS, CURVATURE**2),
            "The curvature comes in as its square root: lengths are measured in 1/√c.",
        ),
        (
            2 * math.pi * math.sinh(s) / math.sqrt(CURVATURE),
            "That is the circle itself. Divide by the flat one.",
        ),
        (
            2 * (math.cosh(s) - 1) / s**2,
            "That compares the areas of the disks. Compare the lengths of the circles.",
        ),
        (math.sinh(s) / RADIUS, "The √c under the sinh is missing: the circle is 2π sinh(√c R)/√c long."),
    ]
    return slipped(answer, room(RADIUS, CURVATURE), "the ratio", slips)


def _verify_distortion(answer: Any) -> str | None:
    slips = [
        (lambda e, t: _off_diagonal(e, t).max(), "It changes when the embedding is drawn in other units."),
        (
            lambda e, t: _off_diagonal(e, t).min() / _off_diagonal(e, t).max(),
            "It is upside down: 1 is the best.",
        ),
        (
            lambda e, t: max(_off_diagonal(e, t).max(), 1 / _off_diagonal(e, t).min()),
            "It takes the worse of stretching and squeezing, which changes with the units; their product does not.",
        ),
    ]
    return _compare(answer, worst_distortion, _embeddings(), "the worst distortion", slips)


def _verify_spoke(answer: Any) -> str | None:
    sine = math.sin(math.pi / SPOKES)
    slips = [
        (-math.log(sine) / (WORST - 1), "Leaves may come out 1.1 times too close, which is 1/1.1, not 0.9."),
        (
            1 / sine,
            "That is the flat star's distortion, whatever its spokes. In curved space length matters.",
        ),
        (spoke(SPOKES // 2, WORST), "The right triangle has half of the angle between two spokes."),
        (2 * spoke(SPOKES, WORST), "That is the way from leaf to leaf: two spokes."),
    ]
    return slipped(answer, spoke(SPOKES, WORST), "the length of a spoke", slips, rtol=0.02)


def _verify_delta(answer: Any) -> str | None:
    slips = [
        (lambda d: 2 * four_point_delta(d), "It is twice too large: δ is half of the difference."),
        (
            lambda d: _largest_sum_gap(d) / 2,
            "It compares the largest sum with the smallest, not with the second.",
        ),
        (_largest_sum_gap, "It compares the largest sum with the smallest, and does not halve."),
    ]
    return _compare(answer, four_point_delta, _matrices(), "the four-point δ", slips)


EXERCISES = (
    Exercise(
        asks="How many times as long as a flat circle of radius 10 is a circle of radius 10 in curvature -0.25?",
        verify=_verify_room,
        hints=(
            "In curvature -c a circle of radius R has length 2π sinh(√c R)/√c. What is √c?",
            "The flat circle has length 2πR, so 2π cancels: sinh(√c R)/(√c R).",
            "√0.25 = 0.5, so √c R = 5.",
        ),
        insight="Only √c R counts, and room grows like e^(√c R): with edges of length ln(b)/√c each of b children "
        "gets as much room as their parent had.",
        mistakes=(room(10, 1), room(10, 0.0625), 932.5, 5.857, 7.42, 0.0, -14.84),
    ),
    Exercise(
        asks="Write worst(E, T): the largest ratio of embedded to true distance over the smallest, E and T being "
        "square arrays.",
        verify=_verify_distortion,
        hints=(
            "Divide the two arrays, but not on the diagonal, where both are 0.",
            "np.triu_indices(len(T), 1) picks every pair of different points once.",
            "ratio = (E / T)[np.triu_indices(len(T), 1)], and then its max() over its min().",
        ),
        insight="1 means that all distances are right up to one common scale: no change of units can help or harm.",
        mistakes=(
            lambda e, t: _off_diagonal(e, t).max(),
            lambda e, t: 1 / worst_distortion(e, t),
            lambda e, t: max(_off_diagonal(e, t).max(), 1 / _off_diagonal(e, t).min()),
            lambda e, t: abs(_off_diagonal(e, t) - 1).mean(),
            lambda e, t: e.max() / t.max(),
            lambda e, t: e,
        ),
    ),
    Exercise(
        asks="A star of 8 leaves is drawn in curvature -1 with equal spokes. How long must they be for a worst "
        "distortion of 1.1?",
        verify=_verify_spoke,
        hints=(
            "Which pairs come out too close? Not the spokes, not opposite leaves: the leaves next to each other.",
            "Half of their triangle has a right angle: sinh(d/2) = sinh(ℓ) sin(π/8). In the star they are 2ℓ apart.",
            "For long spokes sinh t ≈ eᵗ/2, which makes it ℓ/1.1 = ℓ + ln sin(π/8).",
        ),
        insight="A turn by the angle θ costs about 2 ln(1/sin(θ/2))/√c, however long the way: spokes twice as long "
        "halve the error. In flat space no length helps.",
        mistakes=(9.605, 2.613, 3.8, 21.13, 1.1, 0.39),
    ),
    Exercise(
        asks="Write delta(D): the four-point δ of a square array of distances.",
        verify=_verify_delta,
        hints=(
            "itertools.combinations(range(len(D)), 4) gives all sets of four points.",
            "Four points make three sums of two distances. Sort them: only the two larger count.",
            "small, middle, top = sorted([D[w,x]+D[y,z], D[w,y]+D[x,z], D[w,z]+D[x,y]]); δ is the largest "
            "(top - middle)/2.",
        ),
        insight="δ is 0 for a tree and for nothing else but pieces of trees; it does not ask for coordinates, and "
        "the number of quadruples grows like n⁴.",
        mistakes=(
            lambda d: 2 * four_point_delta(d),
            lambda d: _largest_sum_gap(d) / 2,
            _largest_sum_gap,
            lambda d: 0.0,
            lambda d: d.max(),
            lambda d: d,
        ),
    ),
)
