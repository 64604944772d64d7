"""Residual quantisation on a manifold: a point becomes a few codes, each naming what the codes before it left over.

In flat space this is residual vector quantisation (RQ); on the ball or the hyperboloid it is the quantiser of HRQ
(Piękos, Kayal, Karatzoglou, *Hyperbolic Residual Quantization*, arXiv 2505.12404). Called with the conventions of
`ResidualVQ` of vector-quantize-pytorch: `quantized, codes, losses = quantizer(x)`.

Which residual is taken and how parts are put together again must fit each other. With ⊕ the addition of the manifold:

    order         residual          parts together              exact
    left          (⊖q) ⊕ r          q1 ⊕ (q2 ⊕ (… ⊕ qN))        yes, and d(x, decoded) = d(0, last residual)
    coadd         r ⊕ (⊖q)          ((qN ⊞ …) ⊞ q2) ⊞ q1        yes, by right cancellation
    naive         r ⊕ (⊖q)          ((q1 ⊕ q2) ⊕ …) ⊕ qN        no: Möbius addition is not associative
    euclid_arith  r - q             q1 + q2 + … + qN            in coordinates; may leave the ball, is then pulled in

All four are RQ in flat space. Quantisation is done in float64 whatever comes in.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from workbench.errors import (
    CheckpointError,
    DataError,
    ManifoldError,
    ParameterError,
    WorkbenchError,
    suggest,
)
from workbench.files import load_tensors, save_tensors
from workbench.manifolds import Euclidean, make
from workbench.manifolds.base import enter
from workbench.manifolds.nearest import disk, nearest_code
from workbench.models.codebook import Codebook
from workbench.models.codes import Capacity, CodeStats, capacity, code_stats, deduplicate, uniqueness
from workbench.models.kmeans import kmeans

__all__ = [
    "LOOKUPS",
    "ORDERS",
    "UPDATES",
    "Capacity",
    "Quantized",
    "ResidualQuantizer",
    "capacity",
    "compose",
    "deduplicate",
    "residual",
    "uniqueness",
]

ORDERS = ("left", "naive", "coadd", "euclid_arith")
LOOKUPS = ("manifold", "euclidean")
UPDATES = ("ema", "gradient")
FARTHEST = 30.0  # √c d(0, x) up to which float64 ball coordinates tell points apart


class Quantized(NamedTuple):
    """What a quantiser returns: points (..., ambient), codes (..., levels), losses (levels,)."""

    quantized: Tensor
    codes: Tensor
    losses: Tensor


def residual(manifold, order: str, r: Tensor, q: Tensor) -> Tensor:
    """What is left of r after q, by one of the ORDERS."""
    if order == "left":
        return manifold.translate_to_origin(r, q)
    return r - q if order == "euclid_arith" else manifold.sub(r, q)


def compose(manifold, order: str, parts: Sequence[Tensor]) -> Tensor:
    """The point whose parts, first level first, these are. With the last residual as a further part it is, for the
    orders `left` and `coadd`, the point that was taken apart."""
    if order in ("left", "coadd"):
        whole = parts[-1]
        for q in reversed(parts[:-1]):
            whole = manifold.add(q, whole) if order == "left" else manifold.coadd(whole, q)
        return whole
    whole = parts[0]
    for q in parts[1:]:
        whole = whole + q if order == "euclid_arith" else manifold.add(whole, q)
    return whole


class ResidualQuantizer(nn.Module):
    """`levels` codebooks; points of the manifold become codes (..., levels) and back.

    Args:
        manifold: the space; Euclidean() makes this RQ. dim: its intrinsic dimension.
        codebook_size: codes a level, or one number for each level.
        order: see the module. lookup: the nearest code by the manifold's distance, or by that of the coordinates.
        update: codes follow moving averages ("ema") or an optimiser ("gradient": their tangent vectors are the
            parameters, and the losses hold a term for them).
        decay: of the averages, a training step. commitment: weight α of d(r, q)² for the point.
        revive_below: in training, a code used less than this share of the mean is put on a random residual of its
            level; 0 never. Set it to 0 for the last tenth of a training.
        max_radius: points farther from the origin are pulled in to it, and counted in `clipped`; by default 30/√c.
        seed: of the first codes, of k-means and of revivals.

    Attributes: manifold, dim, levels, sizes; counters `clipped` (points) and `revived` (codes), kept in the state.
    ParameterError for settings that make no sense.
    """

    def __init__(
        self,
        manifold,
        dim: int,
        levels: int = 3,
        codebook_size: int | Sequence[int] = 32,
        *,
        order: str = "left",
        lookup: str = "manifold",
        update: str = "ema",
        decay: float = 0.99,
        commitment: float = 0.25,
        revive_below: float = 0.03,
        max_radius: float | None = None,
        seed: int = 0,
    ):
        super().__init__()
        self.manifold, self.dim, self.levels, self.order = manifold, dim, levels, order
        self.lookup, self.update, self.decay, self.commitment = lookup, update, decay, commitment
        self.revive_below, self.max_radius, self.seed = revive_below, max_radius, seed
        self._check_settings(codebook_size)
        metric = Euclidean() if lookup == "euclidean" else manifold
        generator = torch.Generator().manual_seed(seed)
        trainable = update == "gradient"
        self.books = nn.ModuleList(
            Codebook(manifold, metric, dim, size, trainable=trainable, generator=generator)
            for size in self.sizes
        )
        for counter in ("steps", "clipped", "revived"):
            self.register_buffer(counter, torch.zeros((), dtype=torch.int64))
        self.register_buffer("fitted", torch.zeros((), dtype=torch.bool))
        self._ready = self._warned = False

    def _check_settings(self, codebook_size: int | Sequence[int]) -> None:
        for name, value in (("dim", self.dim), ("levels", self.levels)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ParameterError(f"{name} must be a positive whole number, but came as {value!r}")
        sizes = [codebook_size] * self.levels if isinstance(codebook_size, int) else list(codebook_size)
        if len(sizes) != self.levels or any(isinstance(k, bool) or not k >= 1 for k in sizes):
            raise ParameterError(
                f"codebook_size must be a positive whole number, or {self.levels} of them (one a level), "
                f"but came as {codebook_size!r}"
            )
        self.sizes = tuple(int(k) for k in sizes)
        for name, known in (("order", ORDERS), ("lookup", LOOKUPS), ("update", UPDATES)):
            value = getattr(self, name)
            if value not in known:
                raise ParameterError(
                    f"{name} must be one of {', '.join(known)}, but came as {value!r}{suggest(value, known)}"
                )
        if not 0 <= self.decay < 1:
            raise ParameterError(f"decay must be from 0 to below 1, but came as {self.decay!r}")
        if not (self.commitment >= 0 and self.revive_below >= 0):
            raise ParameterError(
                f"commitment and revive_below must not be below 0, "
                f"but came as {self.commitment!r} and {self.revive_below!r}"
            )
        if self.max_radius is not None and not self.max_radius > 0:
            raise ParameterError(f"max_radius must be positive or None, but came as {self.max_radius!r}")
        in_coordinates = self.order == "euclid_arith" or self.lookup == "euclidean"
        if in_coordinates and self.manifold.ambient_dim(self.dim) != self.dim:
            raise ParameterError(
                f"order='euclid_arith' and lookup='euclidean' work on free coordinates, which points of "
                f"{self.manifold} do not have: use the ball"
            )

    @property
    def metric(self):
        """The space whose distance looks codes up: the manifold, or that of the coordinates."""
        return self.books[0].metric

    # -- points in ----------------------------------------------------------------------------------------
    def _enter(self, x: Tensor, dtype: torch.dtype = torch.float64) -> Tensor:
        """Checked points as (N, ambient) in `dtype`, within the largest radius."""
        enter(x=x)
        ambient = self.manifold.ambient_dim(self.dim)
        if x.shape[-1] != ambient:
            raise ManifoldError(
                f"points of the {self.dim}-dimensional {self.manifold} have {ambient} coordinates, "
                f"got shape {tuple(x.shape)}"
            )
        flat = x.reshape(-1, ambient).to(dtype)
        with torch.no_grad():
            radius = self.manifold.dist0(flat.detach(), keepdim=True)
            within = not len(flat) or bool(radius.max() <= self._reach())  # false where a coordinate is NaN
        # Free coordinates within a finite radius are on the manifold: no second pass over them.
        if not within or ambient != self.dim:
            self.manifold.check(x.detach())
        return flat if within else self._pull_in(flat, radius)

    def _reach(self) -> float:
        c = float(self.manifold.c.detach())
        return self.max_radius or (FARTHEST / math.sqrt(c) if c else torch.finfo(torch.float64).max)

    def _pull_in(self, x: Tensor, radius: Tensor) -> Tensor:
        """x with what lies beyond the largest radius pulled in along its ray, and counted."""
        reach = self._reach()
        far = radius > reach
        self.clipped += far.sum()
        return torch.where(far, self.manifold.scale(torch.where(far, reach / radius, 1.0), x), x)

    def _residual(self, r: Tensor, q: Tensor) -> Tensor:
        left = residual(self.manifold, self.order, r, q)
        if self.order != "euclid_arith":  # the others stay on the manifold by themselves
            return left
        inside = self.manifold.projx(left)
        with torch.no_grad():
            out = (inside != left).any(-1, keepdim=True)
            self.clipped += out.sum()
        return inside

    def _look_up(self, r: Tensor, level: int) -> Tensor:
        """The nearest code of a level, compared in the dtype of r."""
        return nearest_code(disk(self.metric, r.detach()), self.books[level].frozen(r.dtype)[1])

    # -- codes --------------------------------------------------------------------------------------------
    @property
    def codebooks(self) -> list[Float[Tensor, "k n"]]:
        """The codes of every level, (K, ambient) points."""
        return [book.frozen()[0] for book in self.books]

    @torch.no_grad()
    def encode(self, x: Float[Tensor, "... n"], chunk: int = 2048) -> Int[Tensor, "... levels"]:
        """Codes, int64; float64 points are worked on in float64, others in float32, which is faster and right up
        to near ties, at radii up to about 8/√c.

        ManifoldError for points that are not finite, off the manifold or of another dimension.
        """
        dtype = enter(x=x)[1]
        flat = self._enter(x, dtype)
        codes = torch.empty(len(flat), self.levels, dtype=torch.int64, device=x.device)
        for start in range(0, len(flat), chunk):
            r = flat[start : start + chunk]
            for level, book in enumerate(self.books):
                index = codes[start : start + chunk, level] = self._look_up(r, level)
                if level + 1 < self.levels:
                    r = self._residual(r, book.frozen(dtype)[0][index])
        return codes.reshape(*x.shape[:-1], self.levels)

    @torch.no_grad()
    def decode(self, codes: Int[Tensor, "... j"]) -> Float[Tensor, "... n"]:
        """Float64 points of codes, or of their first j <= levels entries: a prefix is the coarser point.

        DataError for entries that are no code of their level.
        """
        self._check_codes(codes)
        return compose(self.manifold, self.order, self._parts(codes))

    get_output_from_indices = decode  # as vector-quantize-pytorch calls it

    def _parts(self, codes: Tensor) -> list[Tensor]:
        return [self.codebooks[i][codes[..., i]] for i in range(codes.shape[-1])]

    def _check_codes(self, codes: Tensor) -> None:
        if not isinstance(codes, Tensor) or codes.is_floating_point() or codes.dtype == torch.bool:
            kind = codes.dtype if isinstance(codes, Tensor) else type(codes).__name__
            raise DataError(f"codes must be a tensor of whole numbers, got {kind}")
        if codes.ndim == 0 or not 1 <= codes.shape[-1] <= self.levels:
            raise DataError(
                f"codes must have from 1 to {self.levels} entries in the last dimension, "
                f"got shape {tuple(codes.shape)}"
            )
        sizes = torch.tensor(self.sizes[: codes.shape[-1]], device=codes.device)
        wrong = (codes < 0) | (codes >= sizes)
        if wrong.any():
            *_, level = wrong.nonzero()[0].tolist()
            raise DataError(
                f"codes of level {level + 1} run from 0 to {self.sizes[level] - 1}, "
                f"got {int(codes[wrong][0])}"
            )

    @torch.no_grad()
    def residuals(
        self, x: Float[Tensor, "... n"], codes: Int[Tensor, "... levels"] | None = None
    ) -> Float[Tensor, "... levels+1 n"]:
        """x and what each level leaves of it, float64; with the codes of x, or given ones."""
        codes = self.encode(x) if codes is None else codes
        self._check_codes(codes)
        r = self._enter(x)
        left = [r]
        for q in self._parts(codes.reshape(-1, codes.shape[-1])):
            left.append(self._residual(left[-1], q))
        return torch.stack(left, -2).reshape(*x.shape[:-1], len(left), x.shape[-1])

    @torch.no_grad()
    def radii(self, x: Float[Tensor, "... n"]) -> Float[Tensor, "... levels+1"]:
        """√c|r| in the ball chart of x and of each residual: how near the boundary the quantiser works (1 is the
        boundary; above 0.95 gradients fade). In flat space |r|."""
        b = disk(self.manifold, self.residuals(x))
        return b.norm(dim=-1) * (math.sqrt(float(self.manifold.c.detach())) or 1.0)

    def stats(self, codes: Int[Tensor, "n levels"]) -> CodeStats:
        """How many codes of each level are used, and how evenly."""
        self._check_codes(codes)
        return code_stats(codes, self.sizes)

    # -- learning -----------------------------------------------------------------------------------------
    @torch.no_grad()
    def fit(self, points: Float[Tensor, "n k"], iterations: int = 15) -> ResidualQuantizer:
        """Codebooks by k-means of the points and, level by level, of what is left of them; returns itself.

        DataError for fewer points than codes, ManifoldError as `encode`. Nothing changes on an error.
        """
        r = self._enter(points).detach()
        if len(r) < max(self.sizes):
            raise DataError(
                f"a codebook of {max(self.sizes)} codes needs as many points or more, got {len(r)}; "
                f"lower codebook_size or fit more points"
            )
        self._mind_capacity(r)
        for level, book in enumerate(self.books):
            centres, index = kmeans(
                r, self.metric, book.size, iterations=iterations, seed=self.seed * 1_000_003 + level
            )
            book.set(centres, r, index)
            r = self._residual(r, book.frozen()[0][index])
        self.fitted.fill_(True)
        self._ready = True
        return self

    def _mind_capacity(self, x: Tensor) -> None:
        if self._warned:
            return
        radius = float(self.manifold.dist0(x.detach()).mean())
        found = capacity(self.manifold, self.dim, radius, self.sizes)
        if not found.ok:
            warnings.warn(found.sentence, stacklevel=3)
            self._warned = True

    def forward(self, x: Float[Tensor, "... n"]) -> Quantized:
        """Quantise; in training also learn: the first batch fits the codebooks, every batch moves and revives codes.

        Returns the quantised points in the dtype of x with a straight-through gradient (in tangent vectors at the
        origin the identity), the codes, and for each level the mean of α d(r, sg q)², plus d(sg r, q)² where codes
        are parameters. Raises as `encode`, and as `fit` on the first batch.
        """
        if self.training and not self._is_fitted():
            self.fit(x.detach().reshape(-1, x.shape[-1]))
        z, dtype = self._enter(x), enter(x=x)[1]
        r, codes, parts, losses = z, [], [], []
        learning = self.training and len(z) > 0
        generator = self._next_generator() if learning else None
        for level, book in enumerate(self.books):
            if learning:
                self.revived += book.revive(r.detach(), self.revive_below, generator)
            index = self._look_up(r, level)
            live = book.points()[index]
            q = live.detach()
            losses.append(self._loss(r, live))
            if learning:
                book.observe(r.detach(), index, self.decay, move=self.update == "ema")
            codes.append(index)
            parts.append(q)
            r = self._residual(r, q)
        out = compose(self.manifold, self.order, parts)
        if torch.is_grad_enabled() and z.requires_grad:
            t = self.manifold.to_tangent(z)
            out = self.manifold.from_tangent(t + (self.manifold.to_tangent(out) - t).detach())
        shape = x.shape[:-1]
        quantized = self.manifold.projx(out.to(dtype)).reshape(x.shape)
        return Quantized(quantized, torch.stack(codes, -1).reshape(*shape, self.levels), torch.stack(losses))

    def _loss(self, r: Tensor, q: Tensor) -> Tensor:
        loss = self.commitment * self.manifold.dist2(r, q.detach())
        if self.update == "gradient":
            loss = loss + self.manifold.dist2(r.detach(), q)
        return loss.sum() / max(1, len(r))

    def _is_fitted(self) -> bool:
        self._ready = self._ready or bool(self.fitted)
        return self._ready

    def _next_generator(self) -> torch.Generator:
        """The randomness of this step comes from (seed, step) alone, so that a resumed run is the same run."""
        self.steps += 1
        return torch.Generator().manual_seed(self.seed * 1_000_003 + 10_007 + int(self.steps))

    # -- files --------------------------------------------------------------------------------------------
    def settings(self) -> dict:
        """What the constructor was given, JSON-able; the manifold by name and c."""
        names = ("dim", "levels", "order", "lookup", "update", "decay", "commitment", "revive_below")
        return {
            **{name: getattr(self, name) for name in (*names, "max_radius", "seed")},
            "codebook_size": list(self.sizes),
            "manifold": self.manifold.name,
            "c": float(self.manifold.c.detach()),
            "learnable": bool(self.manifold.learnable),
        }

    def save(self, path: str | Path) -> None:
        """One safetensors file, atomically: codes, averages, counters and settings."""
        save_tensors(path, self.state_dict(), {"kind": "residual quantizer", "settings": self.settings()})

    @classmethod
    def load(cls, path: str | Path) -> ResidualQuantizer:
        """Read what `save` wrote, bit for bit; CheckpointError if it is missing, damaged or of another kind."""
        tensors, about = load_tensors(path)
        if about.get("kind") != "residual quantizer":
            raise CheckpointError(f"{path} is a workbench file, but not a residual quantiser")
        try:
            settings = dict(about["settings"])
            space = make(settings.pop("manifold"), settings.pop("c") or 1.0, settings.pop("learnable"))
            model = cls(space, **settings)
            model.load_state_dict(tensors)
        except (WorkbenchError, KeyError, TypeError, RuntimeError) as e:
            raise CheckpointError(f"{path} holds no whole residual quantiser: {e}") from e
        return model

    def _apply(self, fn, recurse=True):
        """Devices change, the dtype does not: quantisation is float64."""

        def move_only(t: Tensor) -> Tensor:
            moved = fn(t)
            return moved if moved.dtype == t.dtype else t.to(moved.device)

        return super()._apply(move_only, recurse)

    def extra_repr(self) -> str:
        return f"dim={self.dim}, sizes={self.sizes}, order={self.order!r}, update={self.update!r}"
