"""Which Python `make` takes, without installing anything: dry runs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="no make here")


def make(*args: str, **environment: str) -> subprocess.CompletedProcess:
    plain = ("VIRTUAL_ENV", "CONDA_PREFIX", "CONDA_DEFAULT_ENV", "VENV", "MAKEFLAGS", "MAKELEVEL", "ARGS")
    env = {k: v for k, v in os.environ.items() if k not in plain} | environment
    return subprocess.run([shutil.which("make"), *args], cwd=ROOT, env=env, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("environment", "python"),
    [
        ({"VENV": "/nowhere/own"}, "/nowhere/own/bin/python"),
        ({"VIRTUAL_ENV": "/nowhere/active"}, "/nowhere/active/bin/python"),
        ({"CONDA_PREFIX": "/nowhere/conda", "CONDA_DEFAULT_ENV": "work"}, "/nowhere/conda/bin/python"),
        ({"CONDA_PREFIX": "/nowhere/conda", "CONDA_DEFAULT_ENV": "base"}, ".venv/bin/python"),
        ({"VIRTUAL_ENV": "/nowhere/active", "VENV": "/nowhere/own"}, "/nowhere/own/bin/python"),
        ({}, ".venv/bin/python"),
    ],
)
def test_an_activated_environment_is_used_as_it_is_and_a_named_folder_wins(environment, python):
    commands = make("-n", "test", **environment).stdout
    assert f'"{python}" -m pytest' in commands
    active = "VENV" not in environment and python.startswith("/nowhere")
    assert ("pip install --disable" in commands) is not active


def test_an_activated_environment_without_the_workbench_is_not_touched(tmp_path):
    done = make("env", VIRTUAL_ENV=str(tmp_path))
    assert done.returncode and "lacks the workbench" in done.stderr and "pip install -e" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_this_environment_needs_nothing():
    done = make("env", VIRTUAL_ENV=sys.prefix)
    assert done.returncode == 0, done.stderr


def test_without_a_python_one_sentence_says_how_to_get_one(tmp_path):
    done = make("env", VENV=str(tmp_path / "new"), PATH=str(tmp_path), SHELL="/bin/sh")
    assert done.returncode and "No Python >= 3.11" in done.stderr and "apt-get install" in done.stderr
    assert not (tmp_path / "new").exists()


def test_figures_are_made_anew_with_the_profile_and_jobs_asked_for():
    commands = make("-n", "figures", "PROFILE=full", "JOBS=2", VIRTUAL_ENV=sys.prefix).stdout
    assert "-m workbench figures --force --profile full --jobs 2" in commands
