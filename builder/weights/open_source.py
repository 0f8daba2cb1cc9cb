"""Which weight differences do the settings ask for? Two models opened, and checked by headers.

Says in the facts what was compared and who named the base. Computes nothing.
"""

from __future__ import annotations

import os

from builder.config import DirectionSettings, ModelSettings, public_name
from builder.errors import CheckpointError, ConfigError
from builder.weights.adapter import is_adapter
from builder.weights.adapter_delta import Adapted, AdapterSource
from builder.weights.checkpoint import Checkpoint
from builder.weights.delta import CheckpointSource, DeltaSource
from builder.weights.matrix import matrix_shape
from builder.weights.pair import Finder, Side, same
from builder.weights.source import locate


def open_source(model: ModelSettings, settings: DirectionSettings) -> DeltaSource:
    """Where the weight differences come from: two models, each whole or an adapter; or one.

    Everything that headers can tell is checked here, before anything is computed. Raises
    ConfigError for a request that cannot be meant, CheckpointError for weights that cannot be used.
    """
    if settings.method == "raw":
        source: DeltaSource = _raw(model)
    else:
        finder = Finder(model)
        tuned = finder.tuned()
        source = _difference(finder.base(tuned), tuned)
    _check_memory(source)
    return source


def _raw(model: ModelSettings) -> DeltaSource:
    place = locate(model.tuned, model.tuned_revision)
    if is_adapter(place.folder):
        raise ConfigError(
            f"{model.tuned}: is an adapter, which has no whole weights; directions.method = "
            '"raw" needs a full checkpoint'
        )
    return CheckpointSource(None, Checkpoint.at(place))


def _difference(base: Side, tuned: Side) -> DeltaSource:
    if base.adapter is not None and tuned.adapter is not None:
        if same(base.adapter.place, tuned.adapter.place):
            raise ConfigError(f"{base.adapter.ref}: is given as both model.base and model.tuned")
        if not same(base.whole, tuned.whole):
            raise ConfigError(
                f"{tuned.adapter.ref} is an adapter of {tuned.whole.name}, {base.adapter.ref} one "
                f"of {base.whole.name}; two tunes of one model were looked for. If both mean the "
                "same model, set model.adapter_base to it"
            )
    tuned_whole = Checkpoint.at(tuned.whole)
    base_whole = tuned_whole if same(base.whole, tuned.whole) else Checkpoint.at(base.whole)
    source: DeltaSource
    if base.adapter is None and tuned.adapter is None:
        source = CheckpointSource(base_whole, tuned_whole)
    else:
        source = AdapterSource(
            Adapted(base_whole, base.adapter), Adapted(tuned_whole, tuned.adapter)
        )
    source.facts["base_found"] = base.found
    for key, side in (("adapter_base", tuned), ("base_adapter_base", base)):
        if side.adapter is not None:
            source.facts[key] = f"{public_name(side.whole.name)}, {side.whole_found}"
            if side.whole.revision:
                source.facts[f"{key}_revision"] = side.whole.revision
    return source


def _check_memory(source: DeltaSource) -> None:
    """Raises CheckpointError for a matrix that this machine's memory cannot hold as float32."""
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
        return
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for hookpoint in source.hookpoints:
        rows, columns = matrix_shape(source.model, source.match, hookpoint)
        if rows * columns * 4 > memory:
            raise CheckpointError(
                f"{source.tuned}: {hookpoint.key} is [{rows}, {columns}], {rows * columns * 4:,} "
                f"bytes as float32, and this machine's memory has {memory:,}; is its file damaged?"
            )
