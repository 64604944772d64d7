"""One level of a residual quantiser: the codes as points of a manifold, how often they are used, and how they move.

Sources: moving averages of van den Oord et al. 2017, appendix A.1, here of the sums that a centroid is made of
(`metric.moments`), so that the ratio, not the average of averages, is the code; revival after Dhariwal et al. 2020.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from workbench.manifolds.nearest import CodeTable, code_table
from workbench.models.movable import Movable


class Codebook(Movable):
    """K codes, held as `Movable` says in float64, whatever dtype the model around them is cast to.

    usage: moving share of the points that chose each code, starts at 1/K. moments: moving averages of the moments of
    those points, whose centroid the code is. trainable: the codes are a parameter for an optimiser instead.
    metric: the space that distances and centroids are taken in, usually the manifold itself.
    """

    def __init__(self, manifold, metric, dim: int, size: int, *, trainable: bool, generator: torch.Generator):
        super().__init__()
        # Not registered: the curvature is the state of the quantiser around, and stands in a file once.
        self._spaces, self.size = (manifold, metric), size
        start = torch.randn(size, dim, generator=generator, dtype=torch.float64) * 0.1
        self._hold(start, trainable)
        self.register_buffer("usage", torch.full((size,), 1 / size, dtype=torch.float64))
        self.register_buffer("moments", metric.moments(self.points().detach()) / size)
        self._key: tuple | None = None
        self._cache: dict[torch.dtype, tuple[Tensor, CodeTable]] = {}

    @property
    def manifold(self):
        return self._spaces[0]

    @property
    def metric(self):
        return self._spaces[1]

    def points(self) -> Float[Tensor, "k n"]:
        """The codes; differentiable in what holds them where that is trainable."""
        # The clone is what autograd keeps: a revival may then write between a forward and its backward pass.
        held = self.held.clone()
        return self.manifold.from_tangent(held) if self.place is None else held

    def frozen(self, dtype: torch.dtype = torch.float64) -> tuple[Tensor, CodeTable]:
        """The codes and their table for `nearest_code`, without gradient, kept until the codes change."""
        t = self.held
        key = (t._version, t.data_ptr(), t.device, self.place is None, float(self.manifold.c.detach()))
        if self._key != key:
            self._key, self._cache = key, {}
        if dtype not in self._cache:
            with torch.no_grad():
                points = self.points()
                table = code_table(self.metric, points).to(dtype)
                self._cache[dtype] = self.manifold.projx(points.to(dtype)), table
        return self._cache[dtype]

    @torch.no_grad()
    def set(self, points: Float[Tensor, "k n"], members: Tensor, index: Int[Tensor, " n"]) -> None:
        """New codes, with the moments of these members; their usage starts at the mean, so that small clusters
        have the time it takes to forget before they count as dead."""
        self.put(points)
        counts, moments = self._sums(members, index)
        # A code nobody chose weighs as one point would.
        lonely = (counts == 0).unsqueeze(1)
        moments = torch.where(lonely, self.metric.moments(points), moments)
        self.usage.fill_(1 / self.size)
        self.moments.copy_(moments / len(members))

    def _sums(self, x: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        each = self.metric.moments(x)
        total = each.new_zeros(self.size, each.shape[1]).index_add_(0, index, each)
        return total[:, 0], total

    @torch.no_grad()
    def observe(self, x: Float[Tensor, "n k"], index: Int[Tensor, " n"], decay: float, move: bool) -> None:
        """Take one batch into the averages; with `move` the used codes become the centroids of theirs."""
        counts, moments = self._sums(x, index)
        self.usage.lerp_(counts / len(x), 1 - decay)
        self.moments.lerp_(moments / len(x), 1 - decay)
        if move:
            now = self.manifold.to_tangent(self.metric.from_moments(self.moments))
            self.tangent.copy_(torch.where((self.moments[:, :1] > 0), now, self.tangent))

    @torch.no_grad()
    def revive(self, x: Float[Tensor, "n k"], below: float, generator: torch.Generator) -> int:
        """Put codes used less than `below` times the mean on points of x drawn at random; how many there were.

        They start again at the mean usage: a counter that starts at 0 would have them replaced at every step.
        """
        dead = (self.usage < below / self.size).nonzero().squeeze(1)
        if not len(dead):
            return 0
        order = torch.randperm(len(x), generator=generator).to(x.device)
        drawn = x[order[torch.arange(len(dead), device=x.device) % len(x)]]
        self.put(drawn, dead)
        self.usage[dead] = 1 / self.size
        self.moments[dead] = self.metric.moments(drawn) / self.size
        return len(dead)
