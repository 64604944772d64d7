"""Errors meant to be read: one sentence that says what was expected and what came."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class WorkbenchError(ValueError):
    """Root of every error the workbench raises on purpose; the command line prints it without a traceback."""


class ManifoldError(WorkbenchError):
    """A tensor is not what its manifold needs: wrong last dimension, NaN, or off the manifold."""


class DataError(WorkbenchError):
    """A data set is missing, damaged or malformed; names the file and row."""


class CheckpointError(WorkbenchError):
    """A saved model cannot be read, or belongs to something else."""


class ParameterError(WorkbenchError):
    """An unknown or ill-typed parameter, figure, profile or option."""


def suggest(name: str, known: Iterable[str]) -> str:
    """`"; did you mean 'x'?"` when something known is close to `name`, else an empty string."""
    close = get_close_matches(str(name), [str(k) for k in known], n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""
