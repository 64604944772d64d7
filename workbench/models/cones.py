"""Entailment cones: each node claims a cone that opens away from the origin, and what lies in it is below it.

The angle that v makes at u with the outward direction is taken after the translation that carries u to the origin,
where angles are Euclidean: one formula for the flat space, the ball and the hyperboloid. Source: Ganea, Bécigneul,
Hofmann, *Hyperbolic Entailment Cones for Learning Hierarchical Embeddings* (2018), eqs. 26, 28 and 31.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def half_aperture(manifold, u: Float[Tensor, "... k"], aperture: float = 0.1) -> Float[Tensor, "..."]:
    """Half the opening angle of u's cone: arcsin(2K / sinh d(0, u)) in curvature -1, with K = `aperture`; a right
    angle where the origin is so near that no cone fits.

    With K (1 - |u|²) / |u| the paper writes the same in ball coordinates; the general curvature has sinh(√c d)/√c,
    the flat space d.
    """
    r = manifold.dist0(u)
    c = float(manifold.c.detach())
    reach = torch.sinh(c**0.5 * r) / c**0.5 if c > 0 else r
    opposite = 2 * aperture
    room = reach.square() - opposite**2
    inside = room <= 0
    adjacent = torch.where(inside, 1.0, room).sqrt()
    angle = torch.atan2(torch.full_like(adjacent, opposite), adjacent)
    return torch.where(inside, torch.pi / 2, angle)


def outward_angle(manifold, u: Float[Tensor, "... k"], v: Float[Tensor, "... k"]) -> Float[Tensor, "..."]:
    """Angle at u between the geodesic that leads away from the origin and the geodesic to v, in [0, π].

    Undefined where u is the origin or u = v: 0 there, with gradient 0.
    """
    outward = manifold.to_tangent(u)
    toward = manifold.to_tangent(manifold.translate_to_origin(v, u))
    dot = (outward * toward).sum(-1)
    square = outward.square().sum(-1) * toward.square().sum(-1) - dot.square()
    flat = square <= 1e-24 * dot.square()
    sine = torch.where(flat, 1.0, square).sqrt()
    return torch.atan2(torch.where(flat, 0.0, sine), torch.where(flat & (dot == 0), 1.0, dot))


def cone_energy(
    manifold, u: Float[Tensor, "... k"], v: Float[Tensor, "... k"], aperture: float = 0.1
) -> Float[Tensor, "..."]:
    """By how much v lies outside the cone of u, in radians: 0 where the embedding says "v is a u"."""
    return (outward_angle(manifold, u, v) - half_aperture(manifold, u, aperture)).relu()
