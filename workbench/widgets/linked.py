"""Several views of the same points side by side: what is selected or drawn around in one is so in all."""

from __future__ import annotations

from itertools import pairwise

import ipywidgets

from workbench.errors import DataError
from workbench.widgets.disk import DiskView

SHARED = ("selected", "lassoed", "subtree", "max_depth")


def linked(*views: DiskView, titles: tuple[str, ...] = (), center: bool = False) -> ipywidgets.HBox:
    """The views in a row, linked in the browser: two models of one plane, a disk and its flat twin, two checkpoints.

    Selection, lasso and filters are shared. center: so is the point in the middle, for views whose points are equal.
    titles: one a view. DataError for fewer than two views, other numbers of points, or of titles.
    """
    if len(views) < 2:
        raise DataError(f"linking needs two views or more, but {len(views)} came")
    sizes = [len(view.points) for view in views]
    if len(set(sizes)) > 1:
        raise DataError(f"linked views show the same points, but these have {', '.join(map(str, sizes))}")
    if titles and len(titles) != len(views):
        raise DataError(f"{len(views)} views need as many titles, but {len(titles)} came")
    for one, other in pairwise(views):
        for name in (*SHARED, "center") if center else SHARED:
            ipywidgets.jslink((one, name), (other, name))
    boxes = [
        ipywidgets.VBox([ipywidgets.HTML(f"<b>{title}</b>"), view] if title else [view])
        for title, view in zip(titles or ("",) * len(views), views, strict=True)
    ]
    return ipywidgets.HBox(boxes, layout={"flex_flow": "row wrap"})
