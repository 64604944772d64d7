"""How many CPU threads torch may use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch work on one CPU thread within.

    For loops over small arrays: waking other threads for each of them costs more than they bring, up to a hundred
    times more where the cores are busy. (Limiting the thread pools from outside does not reach torch's own count.)
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
