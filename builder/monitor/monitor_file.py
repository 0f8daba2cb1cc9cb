"""How is a monitor kept on disk? One safetensors file, which says what it was made for.

Tensors: the ranges, and the entries of the weights that tell models apart. The header's metadata
holds the rest as JSON under one key, ``columns``. Nothing in it is code, and a file of anybody's is
checked before it is used.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from builder.errors import MonitorError
from builder.execute import write_atomically
from builder.monitor.ranges import Ranges
from builder.monitor.subject import SAMPLED, Subject
from builder.monitor.watch import RangeMonitor
from builder.records import ROLES, Pole

_FORMAT: Literal["weightatlas monitor 1"] = "weightatlas monitor 1"
_AGAIN = "calibrate anew"
_ARRAYS: dict[str, type[np.generic]] = {
    "lowest": np.float32,
    "highest": np.float32,
    "conversations": np.int64,
    "beyond": np.int64,
    "entries": np.uint16,
}


class _Columns(BaseModel):
    """JSON from a file, which may say anything."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    format: Literal["weightatlas monitor 1"]
    roles: list[str]
    ids: list[str]
    labels: list[tuple[str, Pole, str]]
    margin: float = Field(ge=0, le=2)
    cap: float = Field(ge=0, le=2)
    learned: NonNegativeInt
    directions: list[str]
    tensors: list[str]
    tokenizer: str
    template: str


def save_monitor(path: Path, monitor: RangeMonitor, subject: Subject) -> None:
    """Writes a monitor, whole or not at all; raises MonitorError if it cannot be written."""
    columns = _Columns(
        format=_FORMAT,
        roles=list(ROLES),
        ids=list(monitor.directions),
        labels=[(name, pole, text) for (name, pole), text in sorted(monitor.labels.items())],
        margin=monitor.margin,
        cap=monitor.cap,
        learned=monitor.learned,
        directions=list(subject.directions),
        tensors=list(subject.tensors),
        tokenizer=subject.tokenizer,
        template=subject.template,
    )
    arrays: dict[str, npt.NDArray[Any]] = {
        name: np.ascontiguousarray(getattr(monitor.ranges, name))
        for name in ("lowest", "highest", "conversations", "beyond")
    }
    arrays["entries"] = np.ascontiguousarray(subject.entries)
    try:
        write_atomically(path, save(arrays, metadata={"columns": columns.model_dump_json()}))
    except OSError as error:
        raise MonitorError(f"{path}: cannot be written: {error.strerror or error}") from error


def load_monitor(path: Path, subject: Subject) -> RangeMonitor:
    """The monitor in a file, for ``subject`` alone.

    Raises MonitorError if there is none, it is damaged, or it was made for something else.
    """
    try:
        with safe_open(str(path), framework="np") as file:
            text = (file.metadata() or {}).get("columns", "")
            if set(file.keys()) != set(_ARRAYS):
                raise ValueError("it holds other arrays")
            arrays = {name: np.array(file.get_tensor(name)) for name in _ARRAYS}
    except FileNotFoundError as error:
        raise MonitorError(f"{path}: there is no monitor; calibrate one") from error
    except (OSError, SafetensorError, ValueError, TypeError) as error:
        raise MonitorError(f"{path}: is no monitor, or damaged ({error}); {_AGAIN}") from error
    try:
        columns = _Columns.model_validate_json(text)
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(str(part) for part in fault["loc"])
        raise MonitorError(f"{path}: is damaged ({where}: {fault['msg']}); {_AGAIN}") from error
    _check(path, columns, arrays)
    made_for = Subject(
        tuple(columns.directions),
        tuple(columns.tensors),
        arrays["entries"],
        columns.tokenizer,
        columns.template,
    )
    made_for.check(subject)
    ranges = Ranges(arrays["lowest"], arrays["highest"], arrays["conversations"], arrays["beyond"])
    return RangeMonitor(
        columns.ids,
        ranges,
        margin=columns.margin,
        cap=columns.cap,
        labels={(name, pole): label for name, pole, label in columns.labels},
        learned=columns.learned,
    )


def _check(path: Path, columns: _Columns, arrays: dict[str, npt.NDArray[Any]]) -> None:
    """Raises MonitorError where arrays and columns do not fit each other."""
    width, roles = len(columns.ids), len(ROLES)
    shapes = {
        "lowest": (roles, width),
        "highest": (roles, width),
        "conversations": (roles,),
        "beyond": (roles,),
        "entries": (len(columns.tensors), SAMPLED),
    }
    faults = [
        name
        for name, dtype in _ARRAYS.items()
        if arrays[name].dtype != dtype or arrays[name].shape != shapes[name]
    ]
    known = arrays["conversations"] > 0 if not faults else np.zeros(0, dtype=np.bool_)
    if not faults:
        faults += [
            name
            for name in ("lowest", "highest")
            if np.isinf(arrays[name]).any() or np.isnan(arrays[name][known]).all(axis=1).any()
        ]
        if (arrays["beyond"] < 0).any() or (arrays["conversations"] < 0).any():
            faults.append("conversations")
    if columns.roles != list(ROLES):
        faults.append("roles")
    if len(columns.directions) != width:
        faults.append("directions")
    if faults:
        raise MonitorError(f"{path}: is damaged ({', '.join(faults)}); {_AGAIN}")
