from __future__ import annotations

import pytest

from workbench.errors import ParameterError, WorkbenchError
from workbench.runs import manifest


def load(repo, text: str | None = None):
    path = repo / "figures" / "manifest.yaml"
    if text is not None:
        path.write_text(text)
    return manifest.load(path)


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "{}\n"])
def test_an_empty_manifest_is_fine(repo, text):
    assert load(repo, text).select() == []


def test_an_entry_is_found_by_its_id_and_by_its_figures(repo):
    text = (repo / "figures" / "manifest.yaml").read_text().replace("figures: [dots]", "figures: [a, b]")
    listing = load(repo, text)
    entry = listing.entries["dots"]
    assert listing.select(["a", "dots", "b"]) == listing.select() == [entry]
    assert entry.seconds("quick") == 120 and entry.seconds("full") > 3600
    assert dict(entry.profiles["full"]) == {"n": 40} and entry.figures == ("a", "b")
    with pytest.raises(ParameterError, match=r"no run or figure named 'dot'; did you mean 'dots'\?"):
        listing.select(["dot"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("title: Some dots", "titel: Some dots"), r"unknown key 'titel'; did you mean 'title'\?"),
        (("  title: Some dots\n", ""), "'title' is missing"),
        (("notebooks/dots.ipynb", "notebooks/none.ipynb"), "there is no notebooks/none.ipynb"),
        (("notebooks/dots.ipynb", "../dots.ipynb"), "inside the checkout"),
        (("notebooks/dots.ipynb", "notebooks/dots.py"), "path to an .ipynb"),
        (("figures: [dots]", "figures: []"), "at least one figure"),
        (("figures: [dots]", "figures: dots"), "must be a list of names"),
        (("figures: [dots]", "figures: [dots, dots]"), "stands there twice"),
        (("figures: [dots]", "figures: [../dots]"), "is not a name"),
        (("quick: {n: 4}", "fast: {n: 4}"), "neither quick nor full"),
        (("    quick: {n: 4}\n", ""), "must have 'quick'"),
        (("quick: {n: 4}", "quick: {live: true}"), "'live' is set by the runner"),
        (("quick: {n: 4}", "quick: 4"), "expected a mapping, got int"),
        (("timeout: {quick: 120}", "timeout: {quick: 0}"), "seconds above 0"),
        (("timeout: {quick: 120}", "timeout: {all: 3}"), "timeout of 'all'"),
        (("  smoke:", "  smoke: {n: 1}\n  smoke:"), "'smoke' stands twice"),
        (("dots:\n", "Dots!:\n"), "an id is lower-case"),
        (("figures: [dots]", "figures: [dots"), "not readable YAML"),
    ],
)
def test_each_kind_of_mistake_is_one_sentence(repo, change, message):
    text = (repo / "figures" / "manifest.yaml").read_text()
    assert change[0] in text
    with pytest.raises(WorkbenchError, match=message) as caught:
        load(repo, text.replace(*change))
    assert "\n" not in str(caught.value)


def test_two_runs_cannot_make_the_same_figure(repo):
    text = (repo / "figures" / "manifest.yaml").read_text()
    with pytest.raises(WorkbenchError, match="claimed by both dots and more"):
        load(repo, text + text.replace("dots:\n", "more:\n"))


def test_a_manifest_that_is_not_there_or_not_a_mapping(repo, tmp_path):
    with pytest.raises(WorkbenchError, match="expected a mapping, got list"):
        load(repo, "- dots\n")
    with pytest.raises(WorkbenchError, match="no manifest at"):
        manifest.load(tmp_path / "nowhere" / "manifest.yaml")


@pytest.mark.parametrize(
    ("content", "reason"), [(b"\xff\xfe\x80", "not text in UTF-8"), (b"[a]: b\n", "a key must be one word")]
)
def test_a_manifest_that_is_no_text_or_has_a_list_for_a_key_is_one_sentence(tmp_path, content, reason):
    path = tmp_path / "manifest.yaml"
    path.write_bytes(content)
    with pytest.raises(WorkbenchError, match=reason):
        manifest.load(path)
