"""Damaged model folders: sound ones of which one thing is changed, the same ones every time."""

from __future__ import annotations

import json
import os
import random
import struct
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from builder.config import ModelSettings
from tests.weights import pico

DEEP = "[" * 50_000 + "]" * 50_000
#: Values of every kind, and then some that are only JSON's.
VALUES: list[Any] = [
    *(None, True, False, 0, -1, 1, 3, 2**31, 2**63, 2**64, 10**30, 10**5000, 1.5, 1e308, -1e308),
    *("", "x", "\0", "..", "x" * 100_000, "\ud800", [], [1], [[1]], {}, {"a": 1}, [None], ["x"]),
]
LITERALS = ["NaN", "-Infinity", "1e999", DEEP, "{", "'x'", "\x00", '"\\ud800"', "00", ""]
DTYPES = [
    "F64",
    "F16",
    "BF16",
    "I8",
    "U8",
    "I64",
    "BOOL",
    "F8_E4M3",
    "F8_E5M2",
    "F4",
    "C64",
    "X",
    3,
]
SHAPES: list[Any] = [
    *([], [0], [1], [0, 32], [32, 0], [32], [1536], [48, 32], [1, 32, 48], [2, 16, 48], [32, -48]),
    *([2**63], [2**62, 4], [2**40, 2**40], [1e3], [True, 32], "x", None, {}, [None], [[32, 48]]),
]
NAMES = ["", "\0", "x" * 100_000, "a/../b", "__metadata__", "model.layers.0.", "%s%n", "\u202e"]
OFFSETS = [[0, 0], [0, 8], [8, 0], [-4, 4], [0, 2**63], [2**64, 2**65], [0], "x", None]
FACTOR = "base_model.model.model.layers.1.mlp.down_proj.lora_A.weight"
WRITER = "model.layers.0.mlp.down_proj.weight"

ADAPTER_KEYS = [
    *("peft_type", "r", "lora_alpha", "bias", "rank_pattern", "alpha_pattern", "use_rslora"),
    *("init_lora_weights", "modules_to_save", "target_modules", "base_model_name_or_path"),
    *("revision", "use_dora"),
]
ADAPTER_VALUES: dict[str, list[Any]] = {
    "r": [10**9, "3", 4],
    "rank_pattern": [{"down_proj": 10**9}, {"(a+)+": 3}, {"[": 3}, {"": 2}, {"a": "x"}],
    "alpha_pattern": [{"down_proj": 1e300}, {"down_proj": 0}, {"\0": 1}, [1]],
    "lora_alpha": [0, 1e6, 1e300, "16"],
    "base_model_name_or_path": [
        *("/dev/zero", "/etc", "~", "~no-such-user/x", "..", ".", "./\0", "." + "x" * 5000),
        *("../lora", "../tuned/model.safetensors", "a/b/c/d", 7),
    ],
    "target_modules": ["(a+)+$", 7, {"a": 1}],
}
CONFIG_KEYS = [
    *("model_type", "architectures", "hidden_size", "num_hidden_layers", "num_attention_heads"),
    *("num_key_value_heads", "head_dim", "intermediate_size", "vocab_size", "rms_norm_eps"),
    *("tie_word_embeddings", "rope_parameters", "dtype", "hidden_act", "quantization_config"),
    *("max_position_embeddings", "auto_map", "attn_implementation", "is_encoder_decoder"),
]
#: Types and shapes that need just the bytes of the writer, float32 [32, 48].
SAME_SIZE: list[tuple[str, list[int]]] = [
    *(
        ("I32", [32, 48]),
        ("U32", [32, 48]),
        ("BF16", [32, 96]),
        ("F16", [64, 48]),
        ("F64", [32, 24]),
    ),
    *(("F32", [48, 32]), ("F32", [1536]), ("F32", [1, 32, 48]), ("F32", [2, 16, 48])),
    *(("U8", [32, 192]), ("BOOL", [32, 192]), ("F8_E4M3", [32, 192]), ("F8_E5M2", [32, 192])),
    *(("F8_E8M0", [32, 192]), ("F4", [32, 384]), ("F6_E2M3", [32, 256]), ("C64", [32, 24])),
]

Text: TypeAlias = str | bytes
Case: TypeAlias = tuple[str, Callable[[Path], ModelSettings]]


def cases() -> Iterator[Case]:
    """All cases, in an order that does not change."""
    for file, entry in (
        ("tuned/model.safetensors", WRITER),
        ("base/model.safetensors", "model.norm.weight"),
        ("lora/adapter_model.safetensors", FACTOR),
    ):
        yield from _headers(file, entry)
    yield from _same_size()
    yield from _indices()
    yield from _configs("lora/adapter_config.json", ADAPTER_KEYS, ADAPTER_VALUES)
    yield from _configs("tuned/config.json", CONFIG_KEYS, {"hidden_size": [31, 64, 10**7]})
    yield from _bytes()
    yield from _kinds()


def models_of(folder: Path, file: str) -> ModelSettings:
    """The settings that read a file."""
    of = file.split("/", maxsplit=1)[0]
    tuned = "tuned" if of == "base" else of
    base = "" if of == "lora" else str(folder / "base")
    return ModelSettings(base=base, tuned=str(folder / tuned))


def _case(what: str, file: str, change: Callable[[Path], None]) -> Case:
    def make(folder: Path) -> ModelSettings:
        change(folder / file)
        return models_of(folder, file)

    return f"{file}: {what}", make


def _with_header(path: Path, text: bytes, length: int | None = None) -> None:
    raw = path.read_bytes()
    (old,) = struct.unpack("<Q", raw[:8])
    count = len(text) if length is None else length
    path.write_bytes(struct.pack("<Q", count % 2**64) + text + raw[8 + old :])


def _header(path: Path) -> dict[str, Any]:
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    found: dict[str, Any] = json.loads(raw[8 : 8 + length])
    return found


def _edited(
    what: str, file: str, entry: str, edit: Callable[[dict[str, Any], dict[str, Any]], object]
) -> Case:
    """A case in which ``edit`` changes the header's table, given it and one of its entries."""

    def change(path: Path) -> None:
        header = _header(path)
        edit(header, header[entry])
        _with_header(path, json.dumps(header).encode())

    return _case(what, file, change)


def _headers(file: str, entry: str) -> Iterator[Case]:
    """Headers of which one entry says something else."""

    def put(key: str, value: Any, _: dict[str, Any], item: dict[str, Any]) -> None:
        item[key] = value

    def drop(key: str, _: dict[str, Any], item: dict[str, Any]) -> None:
        del item[key]

    def rename(name: str, header: dict[str, Any], _: dict[str, Any]) -> None:
        header[name] = header.pop(entry)

    def hollow(shape: list[int], header: dict[str, Any], item: dict[str, Any]) -> None:
        start, stop = item["data_offsets"]
        rest = {"dtype": "U8", "shape": [stop - start], "data_offsets": [start, stop]}
        header[f"{entry}.rest"] = rest
        item.update(shape=shape, data_offsets=[start, start])

    def stack(header: dict[str, Any], item: dict[str, Any]) -> None:
        for other in header.values():
            other.update(data_offsets=item["data_offsets"])

    values = [("dtype", value) for value in DTYPES]
    values += [("shape", value) for value in SHAPES]
    values += [("data_offsets", value) for value in OFFSETS]
    for key, value in values:
        yield _edited(f"{key} = {value}", file, entry, partial(put, key, value))
    for key in ("dtype", "shape", "data_offsets"):
        yield _edited(f"no {key}", file, entry, partial(drop, key))
    for name in NAMES:
        yield _edited(f"a name {name[:9]!r}", file, entry, partial(rename, name))
    for shape in ([0], [0, 48], [32, 0]):
        yield _edited(f"nothing, in shape {shape}", file, entry, partial(hollow, shape))
    yield _edited("an entry is missing", file, entry, lambda header, _: header.pop(entry))
    yield _edited("an entry is a list", file, entry, lambda header, _: header.update({entry: [1]}))
    yield _edited("bad metadata", file, entry, lambda h, _: h.update(__metadata__={"a": 1}))
    yield _edited("all entries at one place", file, entry, stack)
    yield from _header_texts(file, entry)


def _header_texts(file: str, entry: str) -> Iterator[Case]:
    """Headers that are no table, or longer or shorter than they say."""

    def lie(length: int, path: Path) -> None:
        _with_header(path, json.dumps(_header(path)).encode(), length)

    def twice(path: Path) -> None:
        header = _header(path)
        item = json.dumps({entry: header[entry]})[1:-1]
        _with_header(path, f"{json.dumps(header)[:-1]}, {item}}}".encode())

    def latin(path: Path) -> None:
        _with_header(path, json.dumps(_header(path)).encode().replace(b"layers", b"l\xe4yers"))

    for text in (b"", b"{}", b"[]", b"null", b"{", b"\xff\xfe{}", b"\xef\xbb\xbf{}", DEEP.encode()):
        yield _case(f"header {text[:9]!r}", file, partial(_with_header, text=text))
    yield _case("an entry twice", file, twice)
    yield _case("not UTF-8", file, latin)
    for length in (0, 1, 7, 100_000_001, 2**31, 2**62, 2**63, 2**64 - 1):
        yield _case(f"length {length}", file, partial(lie, length))


def _same_size() -> Iterator[Case]:
    """Types and shapes that need just the bytes there are, in both models alike."""

    def both(dtype: str, shape: list[int], path: Path) -> None:
        for place in (path, path.parent.parent / "base" / path.name):
            header = _header(place)
            header[WRITER].update(dtype=dtype, shape=shape)
            _with_header(place, json.dumps(header).encode())

    def typed(dtype: str, _: dict[str, Any], item: dict[str, Any]) -> None:
        item["dtype"] = dtype

    for dtype, shape in SAME_SIZE:
        what = f"both {dtype} {shape}"
        yield _case(what, "tuned/model.safetensors", partial(both, dtype, shape))
    for dtype in ("I32", "U32"):
        yield _edited(dtype, "lora/adapter_model.safetensors", FACTOR, partial(typed, dtype))


def _given(key: str, literal: str, text: str) -> str:
    """A JSON table with one entry in JSON that Python may not write."""
    return json.dumps(json.loads(text) | {key: "@@"}).replace('"@@"', literal)


def _without(key: str, text: str) -> str:
    return json.dumps({name: value for name, value in json.loads(text).items() if name != key})


def _texts(rng: random.Random, keys: list[str]) -> Iterator[tuple[str, Callable[[str], Text]]]:
    """Changes of the text of a JSON table, of one thing each."""

    def cut(share: float, text: str) -> str:
        return text[: int(share * len(text))]

    def instead(other: str, _: str) -> str:
        return other

    for key in keys:
        for value in rng.sample(VALUES, 3):
            yield f"{key} = {_short(value)}", partial(_given, key, _literal(value))
        literal = rng.choice(LITERALS)
        yield f"{key} is {literal[:9]!r}", partial(_given, key, literal)
        yield f"no {key}", partial(_without, key)
    yield f"{keys[0]} twice", lambda text: text.rstrip()[:-1] + f', "{keys[0]}": []}}'
    yield "not UTF-8", lambda text: text.encode().replace(b'"', b'"\xff', 2)
    yield "a byte order mark", lambda text: b"\xef\xbb\xbf" + text.encode()
    for share in (0.1, 0.5, 0.9, 0.99):
        yield f"cut at {share}", partial(cut, share)
    for other in ("", "[]", "null", '"x"', "7", DEEP, '{"a":' * 50_000):
        yield f"text {other[:9]!r}", partial(instead, other)


def _literal(value: Any) -> str:
    # Python reads and writes no number of so many digits as JSON may have.
    return "9" * 5000 if isinstance(value, int) and value > 10**40 else json.dumps(value)


def _short(value: Any) -> str:
    return "9..." if isinstance(value, int) and value > 10**40 else ascii(value)[:30]


def _rewritten(what: str, file: str, edit: Callable[[str], Text]) -> Case:
    def change(path: Path) -> None:
        text = edit(path.read_text())
        path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))

    return _case(what, file, change)


def _configs(file: str, keys: list[str], more: dict[str, list[Any]]) -> Iterator[Case]:
    for what, edit in _texts(random.Random(file), keys):
        yield _rewritten(what, file, edit)
    for key, values in more.items():
        for value in values:
            yield _rewritten(
                f"{key} = {_short(value)}", file, partial(_given, key, _literal(value))
            )


def _indices() -> Iterator[Case]:
    file, name = "sharded/model.safetensors.index.json", "model-00001-of-00002.safetensors"

    def mapped(more: dict[str, Any], text: str) -> str:
        table = json.loads(text)
        table["weight_map"] |= more
        return json.dumps(table)

    def less(text: str) -> str:
        table = json.loads(text)
        del table["weight_map"][WRITER]
        return json.dumps(table)

    targets: list[Any] = [
        *("../base/model.safetensors", "/etc/passwd", "/dev/zero", "a/../../base/x.safetensors"),
        *("..\\x.safetensors", "C:\\x.safetensors", ".", "", " ", "config.json", "\0.safetensors"),
        *("nowhere.safetensors", "x" * 5000 + ".safetensors", "\ud800.safetensors", "./"),
        *(None, 7, [name], {}, True, "model-00002-of-00002.safetensors", name, f"sub/../{name}"),
    ]
    for target in targets:
        yield _rewritten(f"to {_short(target)}", file, partial(mapped, {WRITER: target}))
    many = range(50_000)
    files, names = {f"x{n}": f"x{n}.safetensors" for n in many}, {f"x{n}": name for n in many}
    yield _rewritten("very many files", file, partial(mapped, files))
    yield _rewritten("very many names", file, partial(mapped, names))
    yield _rewritten("other names", file, lambda text: text.replace("down_proj", "up_projx"))
    yield _rewritten("one name less", file, less)
    again = f', "{WRITER}": "{name}"}}}}'
    yield _rewritten("an entry twice", file, lambda text: text.rstrip()[:-2] + again)
    for what, edit in _texts(random.Random(file), ["weight_map", "metadata"]):
        yield _rewritten(what, file, edit)


def _bytes() -> Iterator[Case]:
    """Bits turned and files cut, anywhere."""
    for file, count in (
        ("tuned/model.safetensors", 30),
        ("lora/adapter_model.safetensors", 15),
        ("sharded/model-00001-of-00002.safetensors", 10),
        ("pickled/pytorch_model.bin", 40),
    ):
        rng = random.Random(file)
        for number in range(count):
            seed = rng.random()

            def turn(path: Path, seed: float = seed) -> None:
                own = random.Random(seed)
                raw = bytearray(path.read_bytes())
                # The first bytes say the length, the next ones what is where.
                limit = own.choice([8, 2000, len(raw)])
                for _ in range(own.choice([1, 1, 8])):
                    raw[own.randrange(limit)] ^= 1 << own.randrange(8)
                path.write_bytes(raw)

            def cut(path: Path, seed: float = seed) -> None:
                raw = path.read_bytes()
                path.write_bytes(raw[: int(seed**3 * len(raw))])

            def grow(path: Path, seed: float = seed) -> None:
                path.write_bytes(path.read_bytes() + bytes(int(1 + seed * 1000)))

            change = (turn, turn, cut, grow)[number % 4]
            yield _case(f"{change.__name__} {number}", file, change)


def _kinds() -> Iterator[Case]:
    """Files that are none, or that are far larger than they seem."""
    files = ["tuned/model.safetensors", "tuned/config.json", "lora/adapter_config.json"]
    files += ["sharded/model.safetensors.index.json", "sharded/model-00001-of-00002.safetensors"]
    for file in files:
        for what, put in (
            ("a pipe", os.mkfifo),
            ("a folder", os.mkdir),
            ("a device", lambda path: path.symlink_to("/dev/zero")),
            ("a loop", lambda path: path.symlink_to(path)),
            ("nothing", lambda _: None),
            ("empty", lambda path: path.touch()),
            ("zeros", lambda path: os.truncate(_touched(path), 2**20)),
            ("very many zeros", lambda path: os.truncate(_touched(path), 2**36)),
        ):

            def change(path: Path, put: Callable[[Path], object] = put) -> None:
                path.unlink()
                put(path)

            yield _case(what, file, change)
    for rows, columns in ((2**20, 2**19), (pico.D_MODEL, 2**36)):

        def spread(path: Path, rows: int = rows, columns: int = columns) -> None:
            header = _header(path)
            end = max(item["data_offsets"][1] for item in header.values() if "shape" in item)
            size = rows * columns * 4
            header[WRITER] |= {"shape": [rows, columns], "data_offsets": [end, end + size]}
            moved = header.pop(WRITER)
            _with_header(path, json.dumps(_packed(header, path) | {WRITER: moved}).encode())
            (length,) = struct.unpack("<Q", path.read_bytes()[:8])
            os.truncate(path, 8 + length + moved["data_offsets"][1])

        yield _case(f"a sparse tensor {[rows, columns]}", "tuned/model.safetensors", spread)


def _packed(header: dict[str, Any], _: Path) -> dict[str, Any]:
    """A header whose gap, where a tensor was taken out, belongs to a tensor of its own."""
    items = sorted(
        (item["data_offsets"] for item in header.values() if "shape" in item), key=lambda o: o[0]
    )
    place = 0
    for start, stop in items:
        if start > place:
            gap = {"dtype": "U8", "shape": [start - place], "data_offsets": [place, start]}
            return header | {"filler": gap}
        place = stop
    return header


def _touched(path: Path) -> Path:
    path.touch()
    return path
