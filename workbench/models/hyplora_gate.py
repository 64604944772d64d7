"""What HypLoRA multiplies LoRA's update by: one number a token, and its gradients.

*Hyperbolic Fine-Tuning for Large Language Models* (arXiv 2410.04010) sends a token x to the hyperboloid of curvature
-1/K with the exponential map at the origin (eq. 12), multiplies the spatial part by BA (eq. 18) and comes back with
the logarithm (eq. 13). All three act along rays, so that the whole path is LoRA's update times one number a token:

    φ = a · R(a‖BAx‖/(s√K)),   a = S(‖x‖/(s√K)),   S(t) = sinh(t)/t,   R(w) = asinh(w)/w,   y = Wx + (α/r) φ BAx

It is LoRA for K → ∞. `workbench.manifolds.Lorentz` walks the path step by step; the tests compare the two.

Here ‖BAx‖² is uᵀ(BᵀB)u with u = Ax, so that φ costs r dimensions and nothing of the size tokens × out is kept for
the backward pass. Numbers of which there is one a token are float64.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from workbench.errors import ParameterError, suggest
from workbench.manifolds.numerics import safe_sqrt

VARIANTS = ("exp", "literal", "official", "stereographic")
_TINY = 1e-150  # below it sinh(t)/t and asinh(w)/w are 1 anyway


# -- the gate ------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Gate:
    """How φ is computed.

    K: at the start, the curvature is -1/K; learn_K: K moves with one parameter k, zero at the start.
    variant: "exp" is the formula above. "literal" is the paper's, which is s = 1 (it overflows at the norms of real
      language models, hence t_max). "official" and "stereographic" are what the released code computes instead, for
      study: they bring their own s and scale, and K enters as raw number (softplus(K), any sign).
    s: what inputs are divided by: "sqrt_d", a number, or "learnable" (starts at √d).
    rescale: multiply the update by s again, so that K → ∞ is LoRA.
    t_max: largest ‖x‖/(s√K) that counts.

    ParameterError for values that make no sense.
    """

    K: float = 1.0
    learn_K: bool = True
    variant: str = "exp"
    s: str | float = "sqrt_d"
    rescale: bool = True
    t_max: float = 12.0

    def __post_init__(self) -> None:
        if self.variant not in VARIANTS:
            raise ParameterError(
                f"variant must be one of {', '.join(VARIANTS)}, but came as {self.variant!r}"
                f"{suggest(self.variant, VARIANTS)}"
            )
        positive("K", self.K)
        positive("t_max", self.t_max)
        if self.t_max > 300:
            raise ParameterError(f"t_max must be at most 300 (sinh overflows), but came as {self.t_max!r}")
        if self.s not in ("sqrt_d", "learnable"):
            positive('s must be "sqrt_d", "learnable" or a number, which', self.s)
        if self.variant == "literal" and self.s not in ("sqrt_d", 1, 1.0):
            raise ParameterError(f"variant literal has s = 1, but s came as {self.s!r}")

    @property
    def learn_s(self) -> bool:
        return self.variant == "official" or (self.variant == "exp" and self.s == "learnable")

    def curvature(self, k: Tensor) -> Float[Tensor, "1"]:
        """K from its parameter, float64; exactly the K of the start at k = 0 (but for "official")."""
        k = k.double()
        if self.variant == "official":
            return F.softplus(self.K + k) + 1e-6
        return self.K + k if self.variant == "stereographic" else self.K * k.exp()

    def scale(self, sigma: Tensor | None, width: int) -> float | Float[Tensor, "1"]:
        """s, from its parameter if it has one (zero at the start)."""
        if self.variant in ("literal", "stereographic"):
            return 1.0
        start = float(self.s) if not isinstance(self.s, str) else math.sqrt(width)
        return start if sigma is None else start * sigma.double().exp()


def positive(name: str, value) -> None:
    """ParameterError unless value is a finite number above 0."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ParameterError(f"{name} must be a positive number, but came as {value!r}")
    if not (math.isfinite(value) and value > 0):
        raise ParameterError(f"{name} must be positive and finite, but came as {value!r}")


def _terms(n, q, K, s, t_max):
    """t, w, a, φ and where t is below its limit, from n = ‖x‖ and q = ‖BAx‖² (..., 1).

    Values only, which need no series at 0; their derivatives are `_slopes`.
    """
    root = K.sqrt() * s
    far = n / root
    t = far.clamp(_TINY, t_max)
    a = t.sinh() / t
    w = (a * q.clamp_min(0).sqrt() / root).clamp_min(_TINY)
    return t, w, a, a * (w.asinh() / w), far < t_max


def _slopes(t, w):
    """(t coth t - 1)/t² and (w/(√(1+w²) asinh w) - 1)/w²: slopes of ln S and ln R, over the squares.

    By their Taylor series where the difference cancels.
    """
    tt, ww = t * t, w * w
    out = torch.where(
        tt < 1e-4, 1 / 3 - tt / 45 + tt * tt * (2 / 945), (t / t.tanh() - 1) / tt.clamp_min(1e-5)
    )
    back = (w / ((1 + ww).sqrt() * w.asinh()) - 1) / ww.clamp_min(1e-5)
    return out, torch.where(ww < 1e-4, -1 / 3 + ww * (11 / 45) - ww * ww * (191 / 945), back)


def _released(gate: Gate, n, q, K, s):
    """The gates of the authors' repository (commit 4e91948), differentiable.

    Official: exp with radius √K, but time √(‖z‖² + 1/K) and a clamped arcosh, so that for K > 1 small z all come out
    with the same length (a dead zone) and for K < 1 never below a floor. It does not multiply s back. Stereographic:
    the *spherical* inverse projection 2x/(1 + K‖x‖²), then z/(1 + √(K(‖z‖² + K))).
    """
    if gate.variant == "stereographic":
        a = 2 / (1 + K * n * n)
        return a / (1 + K.abs().sqrt() * (a * a * q + K).sqrt())
    root = K.sqrt()
    a = root * (n / (s * root)).clamp(max=12.0).sinh() / n.clamp_min(1e-7)
    z = a * safe_sqrt(q)
    theta = (z * z + 1 / K).sqrt() / root
    near = (2 * (theta - 1).clamp_min(1e-6)).sqrt()
    angle = torch.where(theta < 1.01, near, theta.clamp_min(1.005).acosh())
    return a * root * angle / z.clamp_min(1e-7)


# -- the update ----------------------------------------------------------------------------------------------
def no_autocast(x: Tensor):
    """Autocast off: it would take the products to half precision."""
    return torch.autocast(x.device.type, enabled=False)


def work_dtype(x: Tensor, A: Tensor) -> torch.dtype:
    """At least float32; the base may be in half precision or quantised."""
    return torch.promote_types(torch.promote_types(A.dtype, x.dtype), torch.float32)


def _norm(x: Tensor) -> Float[Tensor, "... 1"]:
    return torch.linalg.vector_norm(x, dim=-1, keepdim=True).double()


def _gram(u: Tensor, B: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """u in float64, u(BᵀB), and ‖Bu‖² (..., 1)."""
    u, B = u.double(), B.double()
    uG = u @ (B.mT @ B)
    return u, uG, (uG * u).sum(-1, keepdim=True)


class _Gated(torch.autograd.Function):
    """c φ BAx with K, s float64 tensors of one element. Keeps x, u = Ax and ‖x‖; what else it needs is made again."""

    @staticmethod
    def forward(ctx, x, A, B, K, s, t_max, c, rescale):
        with no_autocast(x):
            dtype = work_dtype(x, A)
            wide = x.to(dtype)
            u, n = F.linear(wide, A.to(dtype)), _norm(wide)
            phi = _terms(n, _gram(u, B)[2], K, s, t_max)[3]
            h = ((phi if rescale else phi / s) * c).to(dtype) * u
            ctx.save_for_backward(x, A, B, K, s, u, n.to(dtype))
            ctx.settings = t_max, c, rescale
            return F.linear(h, B.to(dtype))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g):
        x, A, B, K, s, u, n = ctx.saved_tensors
        t_max, c, rescale = ctx.settings
        with no_autocast(x):
            dtype = u.dtype
            wide, A_, B_ = x.to(dtype), A.to(dtype), B.to(dtype)
            u64, uG, q = _gram(u, B)
            t, w, a, phi, inside = _terms(n.double(), q, K, s, t_max)
            e_t, e_w = _slopes(t, w)
            e_t, square = e_t * inside, 1 / (K * s * s)
            phi = c * (phi if rescale else phi / s)
            gh = g.to(dtype) @ B_
            weight = phi * (gh * u).sum(-1, keepdim=True).double()  # φ dL/dφ, one a token
            by_w = e_w * w * w
            from_q = weight * e_w * a * a * square  # 2 dL/dq
            gu = phi.to(dtype) * gh + (from_q * uG).to(dtype)
            by_s = e_t * t * t * (1 + by_w) + by_w  # -d ln φ/d ln s
            gK = -(weight * by_s).sum().reshape(K.shape) / (2 * K)
            gs = -(weight * (by_s if rescale else by_s + 1)).sum().reshape(s.shape) / s
            flat = _rows(phi.to(dtype) * u)
            gB = _rows(g.to(dtype)).mT @ flat + B_ @ (_rows(from_q * u64).mT @ _rows(u64)).to(dtype)
            gA = _rows(gu).mT @ _rows(wide)
            gx = None
            if ctx.needs_input_grad[0]:
                radial = weight * e_t * square * (1 + by_w)
                gx = torch.addcmul(gu @ A_, radial.to(dtype), wide).to(x.dtype)
        return gx, gA.to(A.dtype), gB.to(B.dtype), gK, gs, None, None, None


def _rows(x: Tensor) -> Float[Tensor, "n d"]:
    return x.reshape(-1, x.shape[-1])


def gate_values(x, A, B, k, sigma, gate: Gate) -> tuple[Float[Tensor, "... 1"], Float[Tensor, "... 1"]]:
    """φ and ‖BAx‖² of each token, float64; what multiplies (α/r) BAx, so divided by s where that is not undone."""
    with no_autocast(x):
        wide = x.to(work_dtype(x, A))
        q = _gram(F.linear(wide, A.to(wide.dtype)), B)[2].clamp_min(0)
        K, s = gate.curvature(k), gate.scale(sigma, x.shape[-1])
        if gate.variant in ("official", "stereographic"):
            return _released(gate, _norm(wide), q, K, s), q
        phi = _terms(_norm(wide), q, K, s, gate.t_max)[3]
        return (phi if gate.rescale else phi / s), q


def hyplora_update(
    x: Float[Tensor, "... d"],
    A: Float[Tensor, "r d"],
    B: Float[Tensor, "out r"],
    k: Float[Tensor, "1"],
    sigma: Float[Tensor, "1"] | None,
    gate: Gate,
    scaling: float,
) -> Float[Tensor, "... out"]:
    """scaling · φ(x) · BAx, at least float32, whatever autocast says.

    k, sigma: parameters of K and s (see `Gate`), sigma None where s is fixed. Norms are finite up to 1e18.
    """
    if gate.variant in ("official", "stereographic"):
        phi, _ = gate_values(x, A, B, k, sigma, gate)
        with no_autocast(x):
            dtype = work_dtype(x, A)
            u = F.linear(x.to(dtype), A.to(dtype))
            return F.linear((scaling * phi).to(dtype) * u, B.to(dtype))
    s = gate.scale(sigma, x.shape[-1])
    if not isinstance(s, Tensor):
        s = torch.full((1,), s, dtype=torch.float64, device=x.device)
    return _Gated.apply(x, A, B, gate.curvature(k), s, gate.t_max, scaling, gate.rescale)
