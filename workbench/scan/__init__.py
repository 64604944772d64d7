"""Floor 1: the recurrences of state space models, fast on CPU and GPU, exact to the dtype's round-off."""

from workbench.scan.backends import BACKENDS, Choice, which
from workbench.scan.conv import causal_conv1d, rms_norm_gated
from workbench.scan.selective import selective_scan
from workbench.scan.ssd import ssd
from workbench.scan.steps import selective_scan_step, ssd_step

__all__ = [
    "BACKENDS",
    "Choice",
    "causal_conv1d",
    "rms_norm_gated",
    "selective_scan",
    "selective_scan_step",
    "ssd",
    "ssd_step",
    "which",
]
