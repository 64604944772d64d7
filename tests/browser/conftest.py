"""A real JupyterLab and a real Chromium; tests that use them skip, with the reason, where there is none."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

import nbformat
import pytest

FLAGS = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-background-networking"]
PATIENCE = 120  # seconds: a loaded machine is slow, not broken

# Restored, showing the notebook, with a kernel connected and idle. Anything less loses "run all" silently.
READY = """async (path) => {
  const app = window.jupyterapp;
  if (!app) return false;
  await app.restored;
  const w = app.shell.currentWidget;
  if (!w || !w.sessionContext || !w.context || w.context.path !== path) return false;
  await w.context.ready;
  await w.sessionContext.ready;
  const kernel = w.sessionContext.session && w.sessionContext.session.kernel;
  if (!kernel) return false;
  await kernel.info;
  return kernel.connectionStatus === "connected" && kernel.status === "idle";
}"""
# Awaiting these inside evaluate would have no timeout: they leave a mark that is polled instead.
RUN_ALL = """() => { window.__ran = 0;
  window.jupyterapp.commands.execute("notebook:run-all-cells")
    .then(() => { window.__ran = 1 }, (e) => { window.__ran = String(e) }) }"""
CELLS = """() => window.jupyterapp.shell.currentWidget.content.widgets.filter((c) => c.model.type === "code")
  .map((c) => [c.model.executionCount, c.model.outputs.toJSON().map((o) => o.evalue ?? o.output_type)])"""
ASK = """([code, expression]) => { window.__answer = null;
  const kernel = window.jupyterapp.shell.currentWidget.sessionContext.session.kernel;
  const request = { code, silent: true, store_history: false, user_expressions: { answer: expression } };
  kernel.requestExecute(request).done
    .then((m) => { window.__answer = JSON.stringify(m.content) }, (e) => { window.__answer = String(e) }) }"""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if call.when == "call":
        item.failed_call = report.failed
    return report


@pytest.fixture(scope="session")
def chromium():
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    path = os.environ.get("BROWSER_PATH") or next(filter(None, map(shutil.which, names)), None)
    if path is None:
        pytest.skip("no Chromium or Chrome found (set BROWSER_PATH)")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, headless=True, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def snapshot(request, tmp_path):
    """Pages added to this list leave a screenshot behind when the test fails."""
    pages = []
    yield pages
    if getattr(request.node, "failed_call", False):
        for k, page in enumerate(pages):
            page.screenshot(path=tmp_path / f"failed_{k}.png")
            print(f"screenshot: {tmp_path / f'failed_{k}.png'}")


@pytest.fixture(scope="session")
def lab(tmp_path_factory):
    """Address and root folder of a JupyterLab with settings of its own and no news."""
    pytest.importorskip("jupyterlab", reason="jupyterlab is not installed")
    root = tmp_path_factory.mktemp("lab")
    quiet = root / "SETTINGS_DIR" / "@jupyterlab" / "apputils-extension" / "notification.jupyterlab-settings"
    quiet.parent.mkdir(parents=True)
    quiet.write_text(json.dumps({"fetchNews": "false", "checkForUpdates": False, "doNotDisturbMode": True}))
    env = dict(os.environ, OMP_NUM_THREADS="1")
    env |= {f"JUPYTER_{k}": str(root / k) for k in ("CONFIG_DIR", "DATA_DIR", "RUNTIME_DIR")}
    env |= {f"JUPYTERLAB_{k}": str(root / k) for k in ("SETTINGS_DIR", "WORKSPACES_DIR")}
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    command = [sys.executable, "-m", "jupyterlab", "--allow-root", "--no-browser", "--ip=127.0.0.1"]
    command += [f"--port={port}", "--ServerApp.port_retries=0", "--IdentityProvider.token="]
    command += ["--LabApp.expose_app_in_browser=True", f"--ServerApp.root_dir={root}"]
    with open(root / "lab.log", "wb") as log:
        server = subprocess.Popen(command, env=env, stdout=log, stderr=subprocess.STDOUT)
    base, deadline = f"http://127.0.0.1:{port}", time.monotonic() + PATIENCE
    while True:
        try:
            urllib.request.urlopen(f"{base}/api/status", timeout=5)
            break
        except OSError:
            if server.poll() is not None or time.monotonic() > deadline:
                server.kill()
                pytest.fail("JupyterLab did not start:\n" + (root / "lab.log").read_text()[-2000:])
            time.sleep(0.2)
    yield base, root
    server.terminate()
    try:
        server.wait(20)
    except subprocess.TimeoutExpired:
        server.kill()


class Notebook:
    """A notebook open in JupyterLab, run to the end; `ask` talks to its kernel."""

    def __init__(self, page, base, path):
        self.page = page
        page.goto(f"{base}/lab/tree/{path}?reset", timeout=PATIENCE * 1000)
        self.until(lambda: page.evaluate(READY, path), "JupyterLab and its kernel are ready")
        page.evaluate(RUN_ALL)
        page.wait_for_function("() => window.__ran", timeout=PATIENCE * 1000)
        cells = page.evaluate(CELLS)
        assert page.evaluate("window.__ran") == 1 and all(count for count, _ in cells), cells

    def until(self, met, what):
        deadline = time.monotonic() + PATIENCE
        while not met():
            assert time.monotonic() < deadline, f"waited {PATIENCE} s in vain until {what}"
            self.page.wait_for_timeout(100)

    def ask(self, expression, code=""):
        """Run `code` in the kernel, then evaluate `expression`, which must give a JSON value."""
        self.page.evaluate(ASK, [code, f"__import__('json').dumps({expression})"])
        self.page.wait_for_function("() => window.__answer", timeout=PATIENCE * 1000)
        content = json.loads(self.page.evaluate("window.__answer"))
        assert content["status"] == "ok", content
        answer = content["user_expressions"]["answer"]
        assert answer["status"] == "ok", answer
        return json.loads(eval(answer["data"]["text/plain"], {"__builtins__": {}}))  # repr of a str


@pytest.fixture(scope="session")
def open_notebook(chromium, lab):
    """`open_notebook(name, source)` runs a notebook of one cell, or the notebook at a path, in JupyterLab."""
    base, root = lab
    pages = []

    def opened(name, source):
        if isinstance(source, str):
            nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
            nb.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
        else:
            nb = nbformat.read(source, 4)
        nbformat.write(nb, root / f"{name}.ipynb")
        page = chromium.new_page(viewport={"width": 1200, "height": 1100})
        pages.append(page)
        return Notebook(page, base, f"{name}.ipynb")

    yield opened
    for page in pages:
        page.close()
