"""What the settings of all trainings are checked for."""

from __future__ import annotations

from workbench.errors import ParameterError


def whole_number(name: str, value: object, least: int) -> None:
    """ParameterError unless the value is a whole number of at least this."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ParameterError(f"{name} must be a whole number from {least}, but came as {value!r}")
