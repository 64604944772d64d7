"""The offline page: the same JavaScript, with the state of the widget in the file and no kernel behind it."""

from __future__ import annotations

import base64
import html
import json
from pathlib import Path
from string import Template
from typing import Any

from workbench.files import atomic_write

# `render` asks its model for get, set, on, off and save_changes; here nobody listens on the other side.
ADAPTER = """
const state = JSON.parse(document.getElementById("state").textContent);
const handlers = {};
for (const [key, value] of Object.entries(state)) if (value?.base64 !== undefined)
  state[key] = new DataView(Uint8Array.from(atob(value.base64), (c) => c.charCodeAt(0)).buffer);
const model = {
  get: (key) => state[key],
  set: (key, value) => { state[key] = value; (handlers[`change:${key}`] ?? []).forEach((f) => f()); },
  on: (name, f) => { (handlers[name] ??= []).push(f); },
  off: (name, f) => { handlers[name] = (handlers[name] ?? []).filter((g) => g !== f); },
  save_changes: () => {},
};
render({ model, el: document.getElementById("view") });
"""

PAGE = Template("""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>$title</title>
<style>
:root { color-scheme: light dark }
body { margin: 0 auto; padding: 16px; max-width: ${width}px; box-sizing: content-box;
  font: 16px/1.45 system-ui, "DejaVu Sans", sans-serif;
  color: light-dark(#1f2328, #e6e6e6); background: light-dark(#fff, #16181d) }
h1 { font-size: 1.3rem; margin: 0 0 8px }
</style>
<h1>$title</h1>
<main id="view"></main>
<noscript>This page draws with JavaScript, which is switched off here.</noscript>
<script type="application/json" id="state">$state</script>
<script type="module">
$script
</script>
</html>
""")


def write_page(path: str | Path, title: str, script: str, state: dict[str, Any]) -> Path:
    """Write `script` (an ES module with a function `render`) and `state` (JSON and bytes) as one page."""
    packed = {
        key: {"base64": base64.b64encode(value).decode()} if isinstance(value, (bytes, memoryview)) else value
        for key, value in state.items()
    }
    page = PAGE.substitute(
        title=html.escape(title),
        width=state["size"] + 8,
        state=json.dumps(packed, sort_keys=True).replace("<", "\\u003c"),  # no "</script>" inside data
        script=(script + ADAPTER).replace("</", "<\\/"),
    )
    with atomic_write(path) as f:
        f.write(page)
    return Path(path)
