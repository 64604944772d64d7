"""The papermill engine of the workbench: no widget state in the output, and a note of how far it is.

papermill stores the state of every widget in the executed notebook (five megabytes for each plotly one) and
its command line has no way to say no; `papermill --engine workbench in.ipynb out.ipynb` does.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from papermill.engines import NBClientEngine, NotebookExecutionManager

from workbench.runs.recording import PROGRESS


class WorkbenchEngine(NBClientEngine):
    """nbclient without widget state; writes `<cell> <of cells>` to the file named by
    `$WORKBENCH_PROGRESS`.
    """

    @classmethod
    def execute_managed_notebook(
        cls, nb_man: NotebookExecutionManager, kernel_name: str, **kwargs: Any
    ) -> Any:
        if path := os.environ.get(PROGRESS):
            start = nb_man.cell_start

            def noted(cell: Any, cell_index: int | None = None, **rest: Any) -> Any:
                Path(path).write_text(f"{cell_index} {len(nb_man.nb.cells)}", encoding="utf-8")
                return start(cell, cell_index, **rest)

            nb_man.cell_start = noted
        kwargs["store_widget_state"] = False
        return super().execute_managed_notebook(nb_man, kernel_name, **kwargs)
