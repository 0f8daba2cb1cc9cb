"""Which tensors does a folder hold, and what is in one of them? Lazy, one tensor at a time.

Names and shapes come from the headers of the safetensors files; data is read only when asked for.
``.bin`` files are opened by ``torch.load(weights_only=True, mmap=True)`` alone, which runs no code
from the file; what that refuses is refused here. Nothing in an index can lead out of the folder;
links are followed, as the hub's cache consists of them.
"""

from __future__ import annotations

import contextlib
import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from pickle import UnpicklingError  # the exception only, which torch.load raises
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from builder.errors import CheckpointError, shown
from builder.weights.reasons import reason

_FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
_ITEM_SIZES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}
_STORED = {"F64": "float64", "F32": "float32", "BF16": "bfloat16", "F16": "float16"}
_PART = re.compile(r"(.*)-(\d+)-of-(\d+)\.(?:safetensors|bin)")
_INDEX_LIMIT = 256 * 2**20
#: A hundred thousand tensors need a tenth of it.
_HEADER_LIMIT = 32 * 2**20
#: What the libraries raise about a tensor that is damaged, of an unknown type, or too large.
_UNREADABLE = (
    *(AttributeError, IndexError, KeyError, MemoryError, OSError, OverflowError, RuntimeError),
    *(SafetensorError, TypeError, ValueError),
)


class TensorFiles:
    """The tensors of a folder's weight files, by name; the files stay mapped until ``close``."""

    def __init__(self, folder: Path, files: Mapping[str, Path]) -> None:
        self.folder = folder
        self._files = dict(files)
        self._handles: dict[Path, Any] = {}
        self._names: dict[Path, dict[str, None]] = {}

    @classmethod
    def open(cls, folder: Path, stem: str = "model") -> TensorFiles:
        """The weight files of ``folder``: ``stem.safetensors``, its shards, else safe ``.bin``s.

        An index is used where there is one; shards without an index are read by their headers.
        Raises CheckpointError if there are no weights, a shard is missing, a name occurs twice, or
        a file is damaged.
        """
        for index in (f"{stem}.safetensors.index.json", f"{_bin_stem(stem)}.bin.index.json"):
            if (folder / index).is_file():
                return cls(folder, _read_index(folder, index))
        paths = _unindexed(folder, stem)
        if not paths:
            raise CheckpointError(
                f"{folder}: no weights found; looked for {stem}.safetensors, its shards and "
                f"{_bin_stem(stem)}.bin"
            )
        opened = cls(folder, {})
        for path in paths:
            for name in opened._names_in(path):
                if name in opened._files:
                    raise CheckpointError(
                        f"{folder}: tensor {name!r} is in both {opened._files[name].name} and "
                        f"{path.name}; remove the file that does not belong"
                    )
                opened._files[name] = path
        return opened

    def __enter__(self) -> TensorFiles:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of every mapped file; they are mapped again when needed."""
        self._handles.clear()

    def __contains__(self, name: object) -> bool:
        return name in self._files

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape as stored, from the header."""
        handle = self._handle(name)
        if isinstance(handle, dict):
            return tuple(handle[name].shape)
        return tuple(self._slice(handle, name).get_shape())

    def dtype(self, name: str) -> str:
        """Number type as stored, such as ``bfloat16``, from the header."""
        handle = self._handle(name)
        if isinstance(handle, dict):
            return _dtype(handle[name])
        stored = str(self._slice(handle, name).get_dtype())
        return _STORED.get(stored, stored)

    def item_size(self, name: str) -> int:
        """Bytes that an entry of a tensor is stored in, from the header; raises if not a float."""
        dtype = self.dtype(name)
        if dtype not in _ITEM_SIZES:
            raise CheckpointError(
                f"{self._files[name]}: tensor {name!r} is stored as {dtype}; a quantized "
                "checkpoint cannot be compared, give the one it was made from"
            )
        return _ITEM_SIZES[dtype]

    def raw(self, name: str) -> torch.Tensor:
        """The tensor in its stored shape and type; raises CheckpointError if not floating point."""
        handle = self._handle(name)
        if isinstance(handle, dict):
            return self._checked(name, handle[name])
        with self._reading(name):
            return self._checked(name, handle.get_tensor(name))

    def rows(self, name: str, start: int, stop: int) -> torch.Tensor:
        """Rows ``start`` to ``stop`` of a matrix, float32, without reading the others."""
        return self.piece(name, None, start, stop).to(torch.float32)

    def piece(self, name: str, expert: int | None, start: int, stop: int) -> torch.Tensor:
        """Rows ``start`` to ``stop`` of a matrix, or of one expert's in [experts, rows, columns].

        In the stored type; the others are not read. Raises CheckpointError if it is not floating
        point.
        """
        handle = self._handle(name)
        part = handle[name] if isinstance(handle, dict) else self._slice(handle, name)
        with self._reading(name):
            tensor = part[start:stop] if expert is None else part[expert, start:stop]
            return self._checked(name, tensor)

    def _slice(self, handle: Any, name: str) -> Any:
        with self._reading(name):
            return handle.get_slice(name)

    @contextlib.contextmanager
    def _reading(self, name: str) -> Iterator[None]:
        """Names the tensor where a library cannot give it: a type it does not know, no memory."""
        try:
            yield
        except _UNREADABLE as error:
            raise CheckpointError(
                f"{self._files[name]}: tensor {shown(name)!r} cannot be read: {reason(error)}"
            ) from error

    def _checked(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        if tensor.dtype not in _FLOATS:
            raise CheckpointError(
                f"{self._files[name]}: tensor {name!r} is stored as {_dtype(tensor)}; a quantized "
                "checkpoint cannot be compared, give the one it was made from"
            )
        return tensor

    def _handle(self, name: str) -> Any:
        path = self._files.get(name)
        if path is None:
            raise CheckpointError(f"{self.folder}: the checkpoint has no tensor {name!r}")
        names = self._names_in(path)
        if name not in names:
            raise CheckpointError(
                f"{path}: tensor {name!r} should be in this file by the index, but is not"
            )
        return self._handles[path]

    def _names_in(self, path: Path) -> dict[str, None]:
        """Names in one file, in its order; opens it if it is not open."""
        if path not in self._handles:
            self._handles[path] = (
                _open_safetensors(path) if path.suffix == ".safetensors" else _open_bin(path)
            )
        if path not in self._names:  # a safetensors file lists its names anew whenever asked
            self._names[path] = dict.fromkeys(self._handles[path].keys())
        return self._names[path]


def _dtype(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _bin_stem(stem: str) -> str:
    return "pytorch_model" if stem == "model" else stem


def _unindexed(folder: Path, stem: str) -> list[Path]:
    """Weight files of a folder without an index; complete sets of shards only."""
    for pattern in (f"{stem}*.safetensors", f"{_bin_stem(stem)}*.bin"):
        paths = sorted(path for path in folder.glob(pattern) if path.is_file())
        whole = [path for path in paths if path.stem in (stem, _bin_stem(stem))]
        if whole:
            return whole
        if paths:
            _check_complete(folder, paths)
            return paths
    # Some publishers name a lone file otherwise; "consolidated" is a second copy in another layout.
    others = [
        path
        for path in sorted(folder.glob("*.safetensors"))
        if stem == "model" and not path.name.startswith(("consolidated", "adapter"))
    ]
    return others if len(others) == 1 else []


def _check_complete(folder: Path, paths: list[Path]) -> None:
    parts = [match for path in paths if (match := _PART.fullmatch(path.name))]
    if not parts:
        return
    total = int(parts[0].group(3))
    found = {int(match.group(2)) for match in parts}
    missing = [str(number) for number in range(1, min(total, 10_000) + 1) if number not in found]
    if missing:
        raise CheckpointError(
            f"{folder}: shard {', '.join(missing[:5])} of {total} is missing; "
            "copy or download the checkpoint again"
        )


def _read_index(folder: Path, name: str) -> dict[str, Path]:
    """Tensor name to file, from an index that may say anything."""
    path = folder / name
    try:
        if path.stat().st_size > _INDEX_LIMIT:
            raise CheckpointError(f"{path}: too large for an index of tensors")
        table = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: cannot be read as JSON: {reason(error)}") from error
    entries = table.get("weight_map") if isinstance(table, dict) else None
    if not isinstance(entries, dict) or not entries:
        raise CheckpointError(f"{path}: holds no 'weight_map'")
    files: dict[str, Path] = {}
    for tensor, target in entries.items():
        if not isinstance(target, str) or not _stays_inside(target):
            raise CheckpointError(
                f"{path}: {shown(tensor)!r} points outside the folder, to {shown(repr(target))}"
            )
        files[tensor] = folder / target
    for target_path in sorted(set(files.values())):
        if target_path.suffix not in (".safetensors", ".bin"):
            raise CheckpointError(f"{path}: {shown(target_path.name)!r} is no weight file")
        if not _is_file(target_path):
            raise CheckpointError(
                f"{path}: {shown(target_path.name)} is missing; copy or download the checkpoint "
                "again"
            )
    return files


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long, or behind a closed folder
        return False


def _stays_inside(target: str) -> bool:
    """Whether a file name from an index is a plain path below the folder."""
    posix, windows = PurePosixPath(target), PureWindowsPath(target)
    return bool(
        target.strip()
        and "\0" not in target
        and "\\" not in target
        and not posix.is_absolute()
        and not windows.drive
        and ".." not in posix.parts
    )


def _open_safetensors(path: Path) -> Any:
    try:
        with path.open("rb") as stream:
            header = int.from_bytes(stream.read(8), "little")
        if header > _HEADER_LIMIT:
            raise CheckpointError(
                f"{path}: its header says that it is {header:,} bytes long, which no table of "
                "tensors needs; copy or download it again"
            )
        return safe_open(str(path), framework="pt", device="cpu")
    except _UNREADABLE as error:
        raise CheckpointError(
            f"{path}: not a readable safetensors file ({reason(error)}); copy or download it again"
        ) from error


def _open_bin(path: Path) -> dict[str, torch.Tensor]:
    _check_archive(path)
    try:
        table = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (*_UNREADABLE, AssertionError, EOFError, UnpicklingError) as error:
        raise CheckpointError(
            f"{path}: this pickle cannot be read safely ({reason(error)}); convert the checkpoint "
            "to safetensors where you trust it (load and save_pretrained with transformers)"
        ) from error
    if not isinstance(table, dict) or not all(
        isinstance(name, str) and isinstance(tensor, torch.Tensor) for name, tensor in table.items()
    ):
        raise CheckpointError(f"{path}: is not a plain table of tensors; convert it to safetensors")
    return table


def _check_archive(path: Path) -> None:
    """Raises CheckpointError for a zip archive that would unpack to more than it is.

    torch stores the records of a checkpoint as they are.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            records = archive.infolist()
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError):
        return  # an old format, or damaged: torch says
    for record in records:
        packed = record.compress_type != zipfile.ZIP_STORED
        if packed or (record.filename.endswith(".pkl") and record.file_size > _HEADER_LIMIT):
            raise CheckpointError(
                f"{path}: record {shown(record.filename)!r} is compressed, or larger than any "
                "table of tensors; this is no checkpoint that torch saved"
            )
