"""The views' JavaScript outside of a browser."""

import json
import shutil
import subprocess

import pytest

NODE = shutil.which("node")
needs_node = pytest.mark.skipif(
    NODE is None, reason="node is not installed: the JavaScript runs in browsers only"
)


def evaluated(source, body, data):
    """Run `body`, which sees what `source` defines and `data`, and return the JSON value it returns."""
    script = (
        f"{source}\nconst data = {json.dumps(data)};\nconsole.log(JSON.stringify((() => {{ {body} }})()));"
    )
    done = subprocess.run(
        [NODE, "--input-type=module"], input=script, capture_output=True, text=True, check=True, timeout=60
    )
    return json.loads(done.stdout)
