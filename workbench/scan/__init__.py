"""Floor 1: the recurrences of state space models, fast on CPU and GPU, exact to the dtype's round-off."""

from workbench.scan.backends import BACKENDS, Choice, which
from workbench.scan.selective import selective_scan
from workbench.scan.ssd import ssd

__all__ = [
    "BACKENDS",
    "Choice",
    "selective_scan",
    "ssd",
    "which",
]
