"""The spaces: flat, Poincaré ball, hyperboloid, with one interface.

`c > 0` is the magnitude of the curvature (sectional curvature -c). Functions act on the last dimension and
broadcast over the rest; they compute in float64 and return the dtype that came, at least float32 (so that
bfloat16 activations become float32 points). `dist0(from_tangent(v)) = |v|` in all three spaces;
`expmap0`/`logmap0` keep each chart's coordinate convention (in the ball dist0 = 2|u|).
"""

from workbench.manifolds.charts import (
    lorentz_to_poincare,
    make,
    poincare_to_lorentz,
    rescale_curvature,
)
from workbench.manifolds.euclidean import Euclidean
from workbench.manifolds.lorentz import Lorentz
from workbench.manifolds.poincare import PoincareBall
from workbench.manifolds.statistics import DeltaHyperbolicity, Distortion, delta_hyperbolicity, distortion

__all__ = [
    "DeltaHyperbolicity",
    "Distortion",
    "Euclidean",
    "Lorentz",
    "PoincareBall",
    "delta_hyperbolicity",
    "distortion",
    "lorentz_to_poincare",
    "make",
    "poincare_to_lorentz",
    "rescale_curvature",
]
