"""`python -m workbench.runs.execute job.json`: one notebook, in a process of its own.

papermill inside a fork breaks ZeroMQ, and a process can be killed when its time is up; hence this small
program. It writes `outcome.json` beside the job file: `{"error": null}` or the sentence to show.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
from pathlib import Path


def main(job_file: str) -> int:
    threading.Thread(target=_die_with_parent, args=(os.getppid(),), daemon=True).start()
    import papermill
    from papermill.exceptions import PapermillExecutionError

    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(message)s")
    job = json.loads(Path(job_file).read_text(encoding="utf-8"))
    error = None
    try:
        papermill.execute_notebook(
            job["input"],
            job["output"],
            parameters=job["parameters"],
            engine_name="workbench",
            kernel_name="python3",
            cwd=job["cwd"],
            progress_bar=False,
            log_output=True,
            start_timeout=120,
        )
    except PapermillExecutionError as e:
        error = f"cell {e.cell_index + 1}: {e.ename}: {e.evalue}"
        logging.error("\n".join(e.traceback))
    except Exception as e:
        error = f"{type(e).__name__}: {e}"
        logging.exception("the notebook did not run")
    Path(job_file).with_name(".outcome.json").write_text(json.dumps({"error": error}), encoding="utf-8")
    return int(error is not None)


def _die_with_parent(parent: int) -> None:
    """A runner that was killed outright cannot stop its notebooks; they notice. (The kernel does so by
    itself.)
    """
    while os.getppid() == parent:
        time.sleep(2)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
