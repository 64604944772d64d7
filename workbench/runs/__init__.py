"""Floor 6, runs: notebooks with parameters, executed headless, leaving figures that know where they came
from.

A notebook needs `record`, `show` and `track`, a sweep also `Cells`. `manifest` says what is run, `runner` runs it
(see `workbench figures`), `keys` decides what is up to date, `index` makes the page of all figures.
"""

from workbench.runs.cells import Cells
from workbench.runs.progress import track
from workbench.runs.recording import context, record, show

__all__ = ["Cells", "context", "record", "show", "track"]
