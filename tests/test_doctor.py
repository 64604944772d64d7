from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from workbench import doctor


def test_a_check_that_breaks_is_a_finding_not_a_crash(monkeypatch):
    def browser():
        raise RuntimeError("broken")

    monkeypatch.setattr(doctor, "browser", browser)
    findings = {f.what: f for f in doctor.examine()}
    assert findings["browser"].state == "bad" and findings["browser"].found == "RuntimeError: broken"
    assert findings["python"].state == "ok"


def test_missing_and_unsuitable_packages_are_named(monkeypatch):
    requires = ["numpy>=99", "no-such-package>=1", "torch>=2", 'pytest>=99; extra == "test"']
    monkeypatch.setattr(doctor.metadata, "requires", lambda _: requires)
    finding = doctor.packages()
    assert finding.state == "bad" and "no-such-package is missing" in finding.found
    assert "not >=99" in finding.found and "pytest" not in finding.found and finding.advice == doctor.INSTALL


def test_a_missing_browser_and_compiler_are_notes_with_advice(monkeypatch):
    monkeypatch.setenv("BROWSER_PATH", "/nonexistent")
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(doctor.shutil, "which", lambda _: None)
    for finding in (doctor.browser(), doctor.compiler()):
        assert finding.state == "note" and "apt-get install" in finding.advice


@pytest.mark.parametrize(
    ("program", "state"), [(sys.executable, "ok"), ("python", "ok"), ("/other/bin/python", "bad")]
)
def test_a_kernel_named_python3_must_run_this_environment(monkeypatch, program, state):
    spec = SimpleNamespace(argv=[program, "-m", "ipykernel_launcher"])
    monkeypatch.setattr(
        "jupyter_client.kernelspec.KernelSpecManager.get_kernel_spec", lambda self, name: spec
    )
    assert doctor.kernel().state == state


def refuse(dir: Path) -> None:
    raise PermissionError(dir)


def test_a_cache_that_cannot_be_written_is_bad_and_one_that_can_be_made_is_ok(tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBENCH_DATA", str(tmp_path / "not" / "yet"))
    assert doctor.cache().state == "ok" and not (tmp_path / "not").exists()
    monkeypatch.setattr(doctor.tempfile, "TemporaryFile", refuse)
    assert doctor.cache().state == "bad" and "WORKBENCH_DATA" in doctor.cache().advice


@pytest.mark.slow
def test_a_classroom_is_told_what_each_laptop_can_do():
    findings = {f.what: f for f in doctor.examine(classroom=True)}
    assert findings["a first cell"].state == findings["views"].state == "ok"
    assert "82,115" in findings["views"].found
    assert {"graphics", "memory", "disk", "speed"} <= set(findings)
    assert all(f.state != "bad" for f in findings.values()), [
        f for f in findings.values() if f.state == "bad"
    ]


def test_little_memory_and_no_browser_are_notes(monkeypatch):
    import psutil

    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=2**30))
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda _: SimpleNamespace(free=2**28))
    monkeypatch.setenv("BROWSER_PATH", "/nonexistent")
    monkeypatch.setattr(doctor.shutil, "which", lambda _: None)
    for finding in (doctor.memory(), doctor.disk(), doctor.graphics()):
        assert finding.state == "note" and finding.advice
