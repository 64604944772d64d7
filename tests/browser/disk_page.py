"""What several browser tests need: a page without a network, a view in it, a tree on a disk."""

from contextlib import contextmanager

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


@contextmanager
def offline_page(chromium, path, width, height, **options):
    """A page opened from a file without a network; at the end nothing else may have been asked for or gone wrong."""
    context = chromium.new_context(viewport={"width": width, "height": height}, offline=True, **options)
    page, trouble, asked = context.new_page(), [], []
    page.on("request", lambda r: asked.append(r.url))
    page.on("requestfailed", lambda r: trouble.append(r.url))
    page.on("pageerror", lambda e: trouble.append(str(e)))
    page.on("console", lambda m: trouble.append(m.text) if m.type in ("error", "warning") else None)
    page.goto(path.as_uri())
    yield page
    assert trouble == []
    assert [url.split(":")[0] for url in asked if not url.startswith("data:")] == ["file"]
    context.close()


class View:
    """A view in a page, through the same mouse and keys a person has. The classes below say where it is."""

    def __init__(self, page):
        self.page = page
        self.there = f"document.querySelector('{self.root}').{self.handle}"
        page.wait_for_function(
            f"() => document.querySelector('{self.root}')?.{self.handle} && {self.there}.{self.ready}",
            timeout=120_000,
        )
        page.locator(self.root).scroll_into_view_if_needed()
        self.settle()

    def get(self, what):
        return self.page.evaluate(f"{self.there}.{what}")

    def drag(self, start, end, steps=12):
        self.page.mouse.move(*start)
        self.page.mouse.down()
        self.page.mouse.move(*end, steps=steps)
        self.page.mouse.up()
        self.settle()


class Disk(View):
    root, handle, ready = ".wb-disk", "__disk", "scene.rows.length"

    def settle(self):
        """Wait until the view has stopped moving and has been painted."""
        self.page.wait_for_function(
            f"""() => {{ const now = JSON.stringify([{self.there}.view, {self.there}.stats.frames]);
            return [window.__last, window.__last = now][0] === now }}""",
            polling=400,
            timeout=120_000,
        )

    def hover(self, x, y):
        self.page.mouse.move(x, y)
        return self.get("hover")

    def distance_to_middle(self, i):
        box = self.page.locator(".wb-disk canvas.over").bounding_box()
        x, y = self.get(f"at({i})")
        return np.hypot(x - box["x"] - box["width"] / 2, y - box["y"] - box["height"] / 2)
