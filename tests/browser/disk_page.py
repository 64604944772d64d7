"""What several browser tests need: a tree on a disk, and the view in a page."""

import numpy as np

SOURCE = """
import numpy as np
from workbench.data import trees
from workbench.widgets import DiskView

h = trees.balanced(3, 7)
depth = np.asarray(h.depth)
angle = np.zeros(len(h))
for level in range(1, depth.max() + 1):
    here = np.flatnonzero(depth == level)
    angle[here] = 2 * np.pi * (np.arange(len(here)) + 0.5) / len(here)
radius = np.tanh(0.35 * depth)
points = np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)
view = DiskView.of(h, points, color="subtree", size=560)
"""
DISK = "document.querySelector('.wb-disk').__disk"


class Disk:
    """The view in a page, through the same mouse a person has."""

    def __init__(self, page):
        self.page = page
        page.wait_for_function(
            f"() => document.querySelector('.wb-disk')?.__disk && {DISK}.scene.rows.length", timeout=120_000
        )
        page.locator(".wb-disk").scroll_into_view_if_needed()
        self.settle()

    def get(self, what):
        return self.page.evaluate(f"{DISK}.{what}")

    def settle(self):
        """Wait until the view has stopped moving and has been painted."""
        self.page.wait_for_function(
            f"""() => {{ const now = JSON.stringify([{DISK}.view, {DISK}.stats.frames]);
            return [window.__last, window.__last = now][0] === now }}""",
            polling=400,
            timeout=120_000,
        )

    def hover(self, x, y):
        self.page.mouse.move(x, y)
        return self.get("hover")

    def drag(self, start, end, steps=12):
        self.page.mouse.move(*start)
        self.page.mouse.down()
        self.page.mouse.move(*end, steps=steps)
        self.page.mouse.up()
        self.settle()

    def distance_to_middle(self, i):
        box = self.page.locator(".wb-disk canvas.over").bounding_box()
        x, y = self.get(f"at({i})")
        return np.hypot(x - box["x"] - box["width"] / 2, y - box["y"] - box["height"] / 2)
