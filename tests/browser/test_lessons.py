"""What `workbench lessons build` makes of a small lesson that is really run, in a browser without a network."""

from __future__ import annotations

import json

import pytest

from workbench.lessons.build import build
from workbench.lessons.checking import Exercise, number

pytestmark = [pytest.mark.browser, pytest.mark.slow]

KNOWN = {"1.1": Exercise("How much is 2 + 2?", lambda a: number(a, 4, "the sum"), ("Count.",), "Four.", (5,))}
SETUP = """import plotly.graph_objects as go
from workbench import runs

class wb:
    check = staticmethod(lambda name, answer: print({...: "open", 4: "right"}[answer]))"""
RECORD = """fig = go.Figure(go.Scatter(y=[1, 2, 4], uid="a"), dict(width=900, height=400))
runs.record("dots", fig, numbers={"n": 3}, verdict="Three dots.", caption="Dots that rise.")"""
CELLS = [
    ("markdown", "# Lesson 1: sums\n\n| | |\n|---|---|\n| **Minutes** | 30 |\n\nWe add."),
    ("code", SETUP),
    ("code", 'profile: str = "quick"\nseed: int = 0\nlive: bool = True', "parameters"),
    ("markdown", "## 1. Two numbers\n\n> **Predict first.** How large?"),
    ("code", RECORD),
    ("markdown", "## 2. A formula\n\nSmall:\n\n$$ \\tanh\\frac r2 < 1 $$\n\nUnsaid."),
    ("markdown", "### Exercise 1.1\n\nAdd."),
    ("code", 'answer = ...\nwb.check("1.1", answer)', "exercise"),
    ("code", 'answer = 2 + 2\nwb.check("1.1", answer)', "solution"),
    ("markdown", "Because it is so.", "solution"),
]
MANIFEST = (
    "sums: {notebook: notebooks/lessons/01_sums.ipynb, title: Sums, figures: [dots], profiles: {quick: {}}}\n"
)


def cell(k, kind, text, *tags):
    about = {"id": f"c{k}", "cell_type": kind, "source": text, "metadata": {"tags": list(tags)}}
    return about | ({"outputs": [], "execution_count": None} if kind == "code" else {})


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder of a build in a checkout of its own."""
    root = tmp_path_factory.mktemp("checkout")
    (root / "figures").mkdir()
    (root / "notebooks" / "lessons").mkdir(parents=True)
    (root / "figures" / "manifest.yaml").write_text(MANIFEST)
    (root / "notebooks" / "lessons" / "GUIDE.md").write_text("# Guide\n\n## Lesson 1: sums\n\nAsked often.\n")
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    content = {"cells": [cell(k, *c) for k, c in enumerate(CELLS)], "metadata": kernel}
    content |= {"nbformat": 4, "nbformat_minor": 5}
    (root / "notebooks" / "lessons" / "01_sums.ipynb").write_text(json.dumps(content))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        built = build(root / "out", known=KNOWN)
    assert not built.problems, built.problems
    assert not list((root / "figures").glob("dots*")), "a build leaves figures/ alone"
    return root / "out"


@pytest.fixture(params=["light", "dark"])
def page(request, chromium):
    context = chromium.new_context(
        offline=True, color_scheme=request.param, viewport={"width": 900, "height": 600}
    )
    page, asked = context.new_page(), []
    page.on("request", lambda r: asked.append(r.url))
    page.on("pageerror", lambda e: asked.append(str(e)))
    yield page
    assert all(url.startswith(("file:", "data:", "blob:")) for url in asked), asked
    context.close()


def test_a_page_shows_figure_and_formula_and_keeps_solutions_folded(made, page):
    page.goto((made / "pages" / "01_sums.html").as_uri())
    page.wait_for_selector(".plot .main-svg")
    assert page.locator("math").bounding_box()["height"] > 20
    assert page.locator("figcaption").inner_text() == "Dots that rise."
    assert page.get_by_text("Three dots.").first.is_visible()
    solution = page.locator("details", has_text="Because it is so.")
    assert not solution.locator("p", has_text="Because").is_visible()
    solution.locator("summary").click()
    assert solution.get_by_text("right", exact=True).is_visible()


def test_a_page_fits_a_telephone(made, page):
    page.set_viewport_size({"width": 390, "height": 800})
    page.goto((made / "pages" / "01_sums.html").as_uri())
    page.wait_for_selector(".plot .main-svg")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_slides_are_numbered_and_turned_by_keys(made, page):
    page.goto((made / "slides" / "01_sums.html").as_uri())
    slides = page.locator("section")
    shown = [slides.nth(k).inner_text() for k in range(slides.count())]
    kinds = [slides.nth(k).get_attribute("class") for k in range(slides.count())]
    assert kinds == ["title", "said", "predict", "shown", "said", "ask", "last"]
    assert [text.splitlines()[-1].strip() for text in shown] == [f"{k} / 7" for k in range(1, 8)]
    assert "Unsaid." not in "".join(shown) and "Because it is so." not in "".join(shown)
    for key, expected in (
        ("ArrowRight", 2),
        ("PageDown", 3),
        (" ", 4),
        ("ArrowLeft", 3),
        ("End", 7),
        ("Home", 1),
    ):
        page.keyboard.press(key)
        page.wait_for_function(
            "k => Math.abs(document.getElementById(k).getBoundingClientRect().top) < 2", arg=expected
        )
    page.keyboard.press("4")  # no meaning, no harm
    page.evaluate("document.getElementById(4).scrollIntoView()")
    page.wait_for_selector("#\\34  .plot .main-svg")
    assert "Three dots." in shown[3] and "Dots that rise." in shown[3]


def test_the_guide_has_times_hints_and_notes_and_the_index_leads_everywhere(made, page):
    page.goto((made / "guide.html").as_uri())
    text = page.locator("main").inner_text()
    assert all(
        part in text for part in ("Asked often.", "1. Two numbers", "Count.", "Four.", "Run with the quick")
    )
    page.goto((made / "index.html").as_uri())
    links = page.eval_on_selector_all("a", "all => all.map(a => a.getAttribute('href'))")
    assert len(links) == 6 and all((made / link).is_file() for link in links)


def test_what_was_run_serves_again_until_a_cell_changes(made, monkeypatch):
    monkeypatch.chdir(made.parent)
    assert not build(made, run=False, known=KNOWN).problems
    path = made.parent / "notebooks" / "lessons" / "01_sums.ipynb"
    before = path.read_text()
    path.write_text(before.replace("We add.", "We add two."))
    try:
        (told,) = build(made, run=False, known=KNOWN).problems
    finally:
        path.write_text(before)
    assert "has not been run as it is" in told
