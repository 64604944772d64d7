"""Pictures: pure functions from numpy arrays to plotly figures, in one look, and to files."""

from workbench.plots.codes import cells, sunburst
from workbench.plots.compose import side_by_side
from workbench.plots.curves import curvature_sweep, lines, training_curve
from workbench.plots.disk import disk
from workbench.plots.drift import drift
from workbench.plots.export import compact, find_browser, write
from workbench.plots.labels import hover_texts, place_labels
from workbench.plots.scans import matrix
from workbench.plots.shapes import circles, geodesics, horocycles, tiling
from workbench.plots.tables import bars, heatmap, table
from workbench.plots.template import COLORSCALE, PALETTE, TEMPLATE

__all__ = [
    "COLORSCALE",
    "PALETTE",
    "TEMPLATE",
    "bars",
    "cells",
    "circles",
    "compact",
    "curvature_sweep",
    "disk",
    "drift",
    "find_browser",
    "geodesics",
    "heatmap",
    "horocycles",
    "hover_texts",
    "lines",
    "matrix",
    "place_labels",
    "side_by_side",
    "sunburst",
    "table",
    "tiling",
    "training_curve",
    "write",
]
