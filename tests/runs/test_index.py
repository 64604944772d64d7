from __future__ import annotations

import json

import plotly.graph_objects as go
import pytest

from workbench.runs import index, manifest


@pytest.fixture
def listing(repo):
    path = repo / "figures" / "manifest.yaml"
    path.write_text(path.read_text().replace("figures: [dots]", "figures: [dots, lines]"))
    return manifest.load(path)


def made(listing, folder: str, **record) -> None:
    """A figure as git keeps it: JSON and record, no HTML, and here no PNG."""
    target = listing.root / "figures" / folder
    target.mkdir()
    (target / "figure.json").write_text(go.Figure(go.Scatter(y=[1, 2], uid="a")).to_json())
    base = {
        "numbers": {"map": 0.123456, "curve": list(range(20))},
        "verdict": "2 < 3.",
        "caption": "Dots & lines",
    }
    base |= {
        "profile": "quick",
        "parameters": {"n": 4},
        "started": "2026-01-02T03:04:05Z",
        "duration_s": 61.0,
    }
    (target / "run.json").write_text(json.dumps(base | record))


@pytest.fixture
def no_browser(monkeypatch):
    monkeypatch.setenv("BROWSER_PATH", "/nonexistent")


def test_figures_and_missing_figures_stand_on_one_page_that_needs_no_network(listing, no_browser):
    made(listing, "dots")
    made(listing, "dots@full", profile="full", verdict="Bigger.")
    page = index.write_index(listing).read_text()
    assert "2 &lt; 3." in page and "Dots &amp; lines" in page and "0.1235" in page and "(20 values)" in page
    assert 'id="dots@full"' in page and "Bigger." in page
    assert "Not made yet: <code>workbench figures dots</code>" in page and 'id="lines"' in page
    assert "http:" not in page and "https:" not in page and str(listing.root) not in page


def test_a_fresh_clone_gets_its_interactive_pages_back_from_the_json(listing, no_browser):
    made(listing, "dots")
    index.write_index(listing)
    html = listing.root / "figures" / "dots" / "figure.html"
    assert html.is_file() and (listing.root / "figures" / "plotly.min.js").is_file()
    before = html.stat().st_mtime_ns
    index.write_index(listing)
    assert html.stat().st_mtime_ns == before


def test_an_empty_manifest_still_makes_a_page(repo):
    (repo / "figures" / "manifest.yaml").write_text("")
    page = index.write_index(manifest.load(repo / "figures" / "manifest.yaml"))
    assert "lists no figures yet" in page.read_text()


def test_notebooks_stand_in_reading_order_and_can_be_filtered(listing, no_browser):
    made(listing, "dots")
    page = index.write_index(listing).read_text()
    assert 'id="filter"' in page and page.index("<nav>") < page.index("<section")
    committed = manifest.load().entries.values()
    titles = ("First", "Lessons", "Explore", "Systems", "Sweeps")
    found = {index._group(e): e.notebook for e in committed}
    assert set(found) == set(titles) and found["First"] == "notebooks/00_start_here.ipynb"
    assert all(f"/{title.lower()}/" in found[title] for title in titles[1:])
