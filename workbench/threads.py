"""How many CPU threads torch may use, and work on several processes."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
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


def spread(function: Callable, calls: Iterable[Mapping], jobs: int = 1) -> Iterator:
    """function(**call) for each call, on `jobs` processes with one thread each; results in the order of the calls.

    The function must be one of a module, and arguments and results such as can be pickled (arrays rather than
    tensors, which travel by open files). An error of a call is raised where its result is due; calls not begun are
    dropped then. With jobs = 1 everything happens here. In a script, call it under `if __name__ == "__main__"`.
    """
    calls = list(calls)
    if jobs <= 1 or len(calls) <= 1:
        for call in calls:
            yield _alone(function, call)
        return
    # Started anew: a process forked from one that has used torch's threads may hang.
    with ProcessPoolExecutor(min(jobs, len(calls)), multiprocessing.get_context("spawn")) as pool:
        waiting = [pool.submit(_alone, function, call) for call in calls]
        try:
            for result in waiting:
                yield result.result()
        finally:
            for result in waiting:
                result.cancel()


def _alone(function: Callable, call: Mapping):
    with one_thread():
        return function(**call)
