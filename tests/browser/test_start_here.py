"""What a newcomer does first: opens JupyterLab, runs 00_start_here, drags all of WordNet."""

import time
from pathlib import Path

import numpy as np
import pytest
from disk_page import DISK, Disk

START = Path(__file__).parents[2] / "notebooks" / "00_start_here.ipynb"
pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]


def test_all_of_wordnet_is_under_the_hand_within_two_minutes(open_notebook, snapshot):
    begun = time.monotonic()
    notebook = open_notebook("00_start_here", START)
    page = notebook.page
    snapshot.append(page)
    disk = Disk(page)
    assert disk.get("scene.n") == 82_115
    middle = disk.get("selected")
    assert disk.get(f"label({middle})") == "music" and disk.distance_to_middle(middle) < 1e-6
    x, y = disk.get(f"at({middle})")
    disk.drag((x, y), (x + 70, y - 50))
    assert np.hypot(*np.subtract(disk.get(f"at({middle})"), (x + 70, y - 50))) < 0.5
    seconds = time.monotonic() - begun
    print(f"from the open notebook to the first drag: {seconds:.0f} s")
    assert seconds < 120
    find = page.locator(".wb-disk input[type=search]")
    find.press_sequentially("dog")
    find.press("Tab")
    page.wait_for_function(f"() => {DISK}.selected >= 0 && {DISK}.label({DISK}.selected) === 'dog'")
    notebook.until(lambda: notebook.ask("nouns.names[view.selected]") == "dog.n.01", "Python knows")
