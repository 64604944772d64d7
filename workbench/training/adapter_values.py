"""Settings of an adapter and of its training out of values by name, as notebooks have them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import fields

from workbench.errors import ParameterError, suggest
from workbench.models.hyplora_adapters import METHODS, AdapterConfig
from workbench.training.fine_tuning import FineTuneSettings

OF_ADAPTER, OF_TRAINING = ({f.name for f in fields(kind)} for kind in (AdapterConfig, FineTuneSettings))


def sorted_values(
    method: str, values: Mapping, without: Collection[str], adapter: Mapping, training: Mapping
) -> tuple[AdapterConfig | None, FineTuneSettings]:
    """The adapter's settings (None for a method of `without`, which has no adapter) and the training's.

    adapter, training: what holds unless values say otherwise. ParameterError for a method or a name that nothing
    knows, and for values that make no sense.
    """
    known = {*METHODS, *without}
    if method not in known:
        raise ParameterError(
            f"method must be one of {', '.join(sorted(known))}, but came as {method!r}{suggest(method, known)}"
        )
    for name in values:
        if name not in OF_ADAPTER | OF_TRAINING:
            raise ParameterError(f"a run has no parameter {name!r}{suggest(name, OF_ADAPTER | OF_TRAINING)}")
    settings = FineTuneSettings(**{**training, **{k: v for k, v in values.items() if k in OF_TRAINING}})
    if method in without:
        return None, settings
    about = {**adapter, **{k: v for k, v in values.items() if k in OF_ADAPTER}}
    return AdapterConfig(method=method, **about), settings
