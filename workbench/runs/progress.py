"""A progress bar that leaves nothing behind in an executed notebook."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")


def track(iterable: Iterable[T], desc: str = "", total: int | None = None) -> Iterator[T]:
    """Iterate with a progress bar: a widget in a live notebook, a line every ten seconds in a log.

    In a headless run a notebook bar would store widget views, so it goes to stderr as plain text there.
    """
    from workbench.runs.recording import context, in_kernel

    if in_kernel() and context() is None:
        from tqdm.auto import tqdm as live

        return iter(live(iterable, desc=desc, total=total))
    quiet = {} if sys.stderr.isatty() else {"mininterval": 10, "ascii": True}
    return iter(tqdm(iterable, desc=desc, total=total, file=sys.stderr, **quiet))
