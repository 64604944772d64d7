"""pyproject.toml, environment.yml and constraints.txt say the same thing."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PYPI_NAMES = {"pytorch": "torch", "python-kaleido": "kaleido"}
PIP_ONLY = {"geoopt", "obonet"}  # from PyPI also in the conda environment
PLATFORM_ONLY = re.compile(r"nvidia|cuda|triton|appnope|pywin|colorama")


@pytest.fixture(scope="module")
def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def environment():
    return yaml.safe_load((ROOT / "environment.yml").read_text())


def requirements(lines) -> dict[str, SpecifierSet]:
    return {canonicalize_name(Requirement(line).name): Requirement(line).specifier for line in lines}


def conda_requirements(environment) -> dict[str, SpecifierSet]:
    found = {}
    for line in environment["dependencies"]:
        if isinstance(line, str):
            match = re.fullmatch(r"([a-z0-9][a-z0-9._-]*)((?:[<>=!~]=?[0-9][0-9a-z.*]*,?)*)", line)
            assert match, f"not a plain conda requirement: {line!r}"
            name, bounds = match.groups()
            bounds = re.sub(r"^=([0-9.]+)$", r"==\1.*", bounds)  # conda's python=3.11 is pip's ==3.11.*
            found[canonicalize_name(PYPI_NAMES.get(name, name))] = SpecifierSet(bounds)
    return found


def test_conda_and_pip_ask_for_the_same_packages_in_the_same_versions(project, environment):
    conda, pip = conda_requirements(environment), requirements(project["dependencies"])
    assert set(pip) - set(conda) == PIP_ONLY
    assert set(conda) - set(pip) == {"python", "pip", "cxx-compiler"}
    assert {name: conda[name] for name in conda if name in pip} == {n: pip[n] for n in pip if n in conda}


def test_binder_has_the_lessons_environment_and_nothing_of_other_versions(project, environment):
    binder = yaml.safe_load((ROOT / "binder" / "environment.yml").read_text())
    mine, whole = conda_requirements(binder), conda_requirements(environment)
    assert set(whole) - set(mine) == {"cxx-compiler", "umap-learn", "kaleido"}
    assert mine == {name: whole[name] for name in mine} and binder["channels"] == environment["channels"]
    pip = requirements(project["dependencies"])
    assert requirements(binder["dependencies"][-1]["pip"]) == {name: pip[name] for name in PIP_ONLY}
    built = ROOT / "binder" / "postBuild"
    assert os.access(built, os.X_OK) and "--no-deps -e ." in built.read_text()


def test_the_conda_environment_takes_one_channel_and_installs_the_checkout_last(environment):
    assert environment["name"] == "workbench"
    assert environment["channels"] == ["conda-forge", "nodefaults"]
    assert environment["dependencies"][-1] == {"pip": ["-e .[test]"]}


def test_its_python_is_one_that_the_project_allows(project, environment):
    pinned = str(conda_requirements(environment)["python"]).removeprefix("==").removesuffix(".*")
    assert SpecifierSet(project["requires-python"]).contains(f"{pinned}.0")


def test_each_line_of_the_environment_says_who_needs_it():
    lines = (ROOT / "environment.yml").read_text().split("dependencies:\n")[1].splitlines()
    assert all("#" in line for line in lines if line.strip() not in ("- python=3.11", "- pip:"))


@pytest.fixture(scope="module")
def pins():
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", line) for line in lines)
    return {
        canonicalize_name(name): Version(version) for name, version in (line.split("==") for line in lines)
    }


def test_every_requirement_is_pinned_within_its_bounds(project, pins):
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    for name, bounds in requirements(line for group in groups for line in group).items():
        if PLATFORM_ONLY.search(name):
            continue
        assert name in pins, f"{name} is not in constraints.txt"
        assert bounds.contains(pins[name]), f"constraints.txt pins {name} {pins[name]}, outside {bounds}"


def test_the_pins_suit_every_platform(pins):
    assert pins["torch"] == Version("2.13.0")
    assert not [name for name in pins if PLATFORM_ONLY.search(name)]
