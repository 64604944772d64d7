from __future__ import annotations

import json

import numpy as np
import plotly.graph_objects as go
import pytest
import torch

from workbench import runs
from workbench.errors import ParameterError
from workbench.runs import keys, recording


@pytest.fixture
def run(tmp_path, monkeypatch):
    """This process believes to be a headless run that may record `dots` and `lines`."""
    staging = tmp_path / "staging"
    staging.mkdir()
    about = {"run": "dots", "title": "Dots", "notebook": "notebooks/dots.ipynb", "figures": ["dots", "lines"]}
    about |= {
        "profile": "quick",
        "parameters": {"seed": 3},
        "staging": str(staging),
        "started": 0.0,
        "code": "c",
    }
    about |= {
        "sources": {"runs/recording.py": "r", "cli_other.py": "o"},
        "assets": "a",
        "data": {},
        "git": None,
    }
    (tmp_path / "context").write_text(json.dumps(about | {"formats": ["json"]}))
    monkeypatch.setenv(recording.RUN, str(tmp_path / "context"))
    return staging


@pytest.fixture
def fig():
    return go.Figure(go.Scatter(x=[0, 1], y=[0, 1], uid="a"))


def test_a_recorded_figure_carries_its_numbers_and_knows_where_it_came_from(run, fig):
    before = fig.to_json()
    numbers = {"map": np.float32(0.5), "n": torch.tensor(3), "curve": np.arange(2), "per": {1: (1, None)}}
    runs.record("dots", fig, numbers=numbers, verdict=" Two\n dots. ", caption="Dots.")
    record = json.loads((run / "dots" / "run.json").read_text())
    assert record["numbers"] == {"map": 0.5, "n": 3, "curve": [0, 1], "per": {"1": [1, None]}}
    assert (record["verdict"], record["seed"], record["profile"]) == ("Two dots.", 3, "quick")
    assert record["key"] == keys.key(record["inputs"])
    assert record["inputs"]["sources"] == {"runs/recording.py": "r"}
    assert record["versions"]["torch"] == torch.__version__ and record["machine"]["threads"] >= 1
    figure = json.loads((run / "dots" / "figure.json").read_text())
    assert figure["layout"]["meta"]["numbers"] == record["numbers"]
    assert fig.to_json() == before


def test_equal_numbers_give_equal_figure_files_and_only_run_json_knows_the_time(run, fig):
    for name in ("dots", "lines"):
        runs.record(name, fig, numbers={"n": 1}, verdict="One.")
    first, second = ((run / name / "figure.json").read_text() for name in ("dots", "lines"))
    assert first.replace('"dots"', '"lines"') == second


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"figure_id": "dot"},
            r"does not list 'dot' for notebooks/dots.ipynb; did you mean 'dots'\?; it lists dots",
        ),
        ({"numbers": {}}, "needs the numbers drawn"),
        ({"numbers": {"a": {"b": float("nan")}}}, r"numbers\['a'\]\['b'\] is nan"),
        ({"numbers": {"a": [1, float("inf")]}}, r"numbers\['a'\]\[1\] is inf"),
        ({"numbers": {"a": np.array([np.nan])}}, r"numbers\['a'\]\[0\] is nan"),
        ({"numbers": {"a": object()}}, r"numbers\['a'\] is a object"),
        ({"verdict": " "}, "needs a verdict"),
        ({"fig": "picture"}, "needs a plotly figure, not str"),
    ],
)
def test_what_cannot_be_recorded_is_refused_and_leaves_nothing(run, fig, change, message):
    arguments = {"figure_id": "dots", "fig": fig, "numbers": {"n": 1}, "verdict": "One."} | change
    with pytest.raises(ParameterError, match=message):
        runs.record(arguments.pop("figure_id"), arguments.pop("fig"), **arguments)
    assert list(run.iterdir()) == []


def test_a_figure_is_recorded_once(run, fig):
    runs.record("dots", fig, numbers={"n": 1}, verdict="One.")
    with pytest.raises(ParameterError, match="recorded twice"):
        runs.record("dots", fig, numbers={"n": 1}, verdict="One.")


def test_a_view_that_cannot_be_written_takes_its_figure_with_it(run, fig):
    class View:
        def to_html(self, path):
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        runs.record("dots", fig, numbers={"n": 1}, verdict="One.", view=View())
    assert list(run.iterdir()) == []


def test_an_interactive_session_writes_nothing_unless_asked(repo, fig, monkeypatch):
    monkeypatch.delenv(recording.RUN, raising=False)
    monkeypatch.chdir(repo)
    runs.record("dots", fig, numbers={"n": 1}, verdict="One.")
    assert not (repo / "figures" / "dots").exists()
    monkeypatch.setattr(
        "workbench.plots.write", lambda fig, folder: (folder / "figure.json").write_text("{}")
    )
    for verdict in ("One.", "Again."):
        runs.record("dots", fig, numbers={"n": 1}, verdict=verdict, save=True)
    record = json.loads((repo / "figures" / "dots" / "run.json").read_text())
    assert record["verdict"] == "Again." and record["key"] is None
    assert {p.name for p in (repo / "figures").iterdir()} == {"manifest.yaml", "dots"}
    with pytest.raises(ParameterError, match="a figure id is"):
        runs.record("../x", fig, numbers={"n": 1}, verdict="One.", save=True)


def test_replacing_a_folder_that_fails_leaves_the_old_one(tmp_path):
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "kept").touch()
    with pytest.raises(FileNotFoundError):
        recording.replace_folder(tmp_path / "missing", tmp_path / "old")
    assert [p.name for p in tmp_path.rglob("*")] == ["old", "kept"]


def test_track_yields_everything_in_order(capsys):
    assert list(runs.track(range(3), "counting")) == [0, 1, 2]
    assert "counting" in capsys.readouterr().err


def test_show_is_silent_outside_jupyter(fig, capsys):
    runs.show(fig)
    assert capsys.readouterr().out == ""


@pytest.fixture
def displayed(monkeypatch):
    """What a kernel would have shown."""
    things = []
    monkeypatch.setattr(recording, "in_kernel", lambda: True)
    monkeypatch.setattr("IPython.display.display", things.append)
    return things


def test_a_figure_shown_and_then_recorded_is_displayed_once_with_its_verdict(run, fig, displayed):
    runs.show(fig)
    runs.record("dots", fig, numbers={"n": 1}, verdict="One.")
    runs.record("lines", go.Figure(fig), numbers={"n": 1}, verdict="Still one.")
    assert [getattr(thing, "data", None) for thing in displayed if not isinstance(thing, go.Figure)] == [
        "**One.**",
        "**Still one.**",
    ]
    assert sum(isinstance(thing, go.Figure) for thing in displayed) == 2


def test_a_headless_run_shows_no_widget_but_what_stands_in_for_it(run, fig, displayed, monkeypatch):
    from ipywidgets import IntSlider

    slider = IntSlider()
    runs.show(slider)
    runs.show(slider, static=fig)
    runs.show(slider, live=True)
    monkeypatch.delenv(recording.RUN)
    runs.show(slider)
    assert "interactive view" in displayed[0].data
    assert displayed[1] is fig and displayed[2] is slider and displayed[3] is slider
