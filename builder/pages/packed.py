"""How do whole windows reach a page's script? Texts and activations in one small container.

A page shows a few examples as HTML. All of them, with every token's activation, the whole window
and the base's activations, lie in a script file beside it that the page loads: about a fifth of
what they would take as HTML. :class:`Packer` takes windows and gives the file.

The file is one call, ``WA.page(bytes,"...")``; the string is so many bytes of gzip in letters (see
:func:`letters`). They hold the length of a JSON header (uint32, little endian), the header (UTF-8),
and streams: the ``lengths`` of the pieces of all texts in order (LEB128, in UTF-16 units), the
``levels`` of all tokens in order (one byte each) and, where the base was scanned, its levels. A
level is the activation in 255 even steps over ``span``. A piece is one token, but where tokens hold
parts of one character: then it is all of these.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from builder.pages.spans import HIDDEN, LONGEST_TOKEN, Pieces, marked_token
from builder.records import ACTIVATION_SCALE, Window

#: Raised when the container changes.
VERSION = 1
_LEVELS = 255
_BITS = 13
_ALPHABET = np.array([code for code in range(33, 127) if chr(code) not in '"\\<'], dtype=np.uint8)
_BASIC = "\uffff"
#: Hidden or not by what stands beside them, which may be in another piece.
_JOINS = frozenset("\u200d\ufe0f")

Values = npt.NDArray[np.int16]


class Packer:
    """The windows of one file, in the order in which they are added."""

    def __init__(self) -> None:
        self._lengths = bytearray()
        self._values: list[Values] = []
        self._base: list[Values] = []

    def text(self, window: Window) -> list[Any]:
        """Adds a text; gives what the header says of it: ``[text, n pieces, [[piece, tokens]]]``.

        The last lists the pieces that are not one token. Hidden characters are named as by
        :func:`builder.pages.spans.marked_hidden`.
        """
        text, ends = window.text, window.token_ends
        lengths = np.diff(ends, prepend=np.uint32(0))
        if _is_plain(text) and len(ends) and ends[-1] == len(text):
            smallest, largest = int(lengths.min()), int(lengths.max())
            if smallest > 0 and largest < min(128, LONGEST_TOKEN):
                self._lengths += lengths.astype(np.uint8).tobytes()
                return [text, len(ends), []]
        return self._in_pieces(window)

    def values(self, tuned: Values, base: Values | None) -> None:
        """Adds the activations of the tokens of a text, and the base's where it was scanned."""
        self._values.append(tuned)
        if base is not None:
            self._base.append(base)

    @property
    def has_base(self) -> bool:
        """Whether the base's activations were given with all others."""
        return 0 < len(self._values) == len(self._base)

    def span(self) -> tuple[float, float]:
        """The least and greatest activation of all that were added; (0, 0) without any."""
        base = self._base if self.has_base else ()
        both = [values for values in (*self._values, *base) if len(values)]
        if not both:
            return 0.0, 0.0
        low, high = min(v.min() for v in both), max(v.max() for v in both)
        return float(low) / ACTIVATION_SCALE, float(high) / ACTIVATION_SCALE

    def file(self, name: str, header: dict[str, Any]) -> bytes:
        """The script that calls ``WA.<name>`` with everything that was added."""
        return script(name, self.content(header))

    def content(self, header: dict[str, Any]) -> bytes:
        """Header and streams, before they are packed into letters."""
        span = self.span()
        whole = {
            "v": VERSION,
            "span": [round(end, 6) for end in span],
            "base": self.has_base,
            **header,
        }
        base = self._base if self.has_base else []
        return with_head(
            whole, (bytes(self._lengths), _levels(self._values, span), _levels(base, span))
        )

    def _in_pieces(self, window: Window) -> list[Any]:
        pieces = Pieces.of(window)
        texts: list[str] = []
        unusual: list[tuple[int, int]] = []
        for start, end, first, last in zip(
            pieces.starts, pieces.ends, pieces.firsts, pieces.lasts, strict=True
        ):
            if first != last:
                unusual.append((len(texts), last - first + 1))
            texts.append(marked_token(pieces.text[start:end]))
        covered = pieces.ends[-1] if pieces.ends else 0
        if covered < len(window.text):
            unusual.append((len(texts), 0))
            texts.append(marked_token(window.text[covered:]))
        self._lengths += _varints(len(text) + _beyond(text) for text in texts)
        return ["".join(texts), len(texts), unusual]


def script(name: str, content: bytes) -> bytes:
    """The script that calls ``WA.<name>`` with these bytes, packed."""
    packed = gzip.compress(content, 9, mtime=0)
    return b'WA.%b(%d,"%b");\n' % (name.encode(), len(packed), letters(packed))


def opened(script: bytes) -> bytes:
    """The bytes that :func:`script` packed."""
    stated, text = script[script.index(b"(") + 1 : script.rindex(b'"')].split(b',"', 1)
    return gzip.decompress(from_letters(text)[: int(stated)])


def with_head(header: Mapping[str, Any], streams: Iterable[bytes]) -> bytes:
    """A JSON header after its length (uint32, little endian), then the streams."""
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    head = text.encode("utf-8")
    return b"".join((len(head).to_bytes(4, "little"), head, *streams))


def headed(content: bytes) -> tuple[dict[str, Any], int]:
    """The JSON header that bytes begin with, and where it ends."""
    end = 4 + int.from_bytes(content[:4], "little")
    header: dict[str, Any] = json.loads(content[4:end])
    return header, end


def letters(content: bytes) -> bytes:
    r"""Bytes as printable ASCII without ``"``, ``\\`` and ``<``: 13 bits in two letters.

    A number from 0 to 8191 is 91 a + b, high bits first, the last one filled up with zeros. A
    thirteenth smaller than base64, which counts where a host limits the size of a site.
    """
    bits = np.unpackbits(np.frombuffer(content, dtype=np.uint8))
    rows = np.pad(bits, (0, -len(bits) % _BITS)).reshape(-1, _BITS)
    numbers = rows.astype(np.int64) @ (1 << np.arange(_BITS)[::-1])
    pairs = np.stack(np.divmod(numbers, len(_ALPHABET)), axis=1)
    return bytes(_ALPHABET[pairs].tobytes())


def from_letters(text: bytes) -> bytes:
    """The bytes of :func:`letters`, and up to one of what filled up the last number."""
    places = np.searchsorted(_ALPHABET, np.frombuffer(text, dtype=np.uint8)).reshape(-1, 2)
    numbers = places @ np.array([len(_ALPHABET), 1])
    bits = (numbers[:, None] >> np.arange(_BITS)[::-1]) & 1
    whole = bits.size - bits.size % 8
    return np.packbits(bits.astype(np.uint8).ravel()[:whole]).tobytes()


def unpacked(script: bytes) -> tuple[dict[str, Any], list[list[str]], bytes]:
    """What a file of :meth:`Packer.file` holds: header, pieces of each text, and the levels.

    Texts are found as the header's ``texts``. For tests and for those who read the files with
    Python; the pages' script does the same.
    """
    content = opened(script)
    header, at = headed(content)
    found = []
    for text, n, _ in header["texts"]:
        units, cut, pieces = text.encode("utf-16-le", "surrogatepass"), 0, []
        for _ in range(n):
            length = shift = 0
            while content[at] & 128:
                length |= (content[at] & 127) << shift
                shift, at = shift + 7, at + 1
            length |= content[at] << shift
            at += 1
            pieces.append(units[2 * cut : 2 * (cut + length)].decode("utf-16-le", "surrogatepass"))
            cut += length
        found.append(pieces)
    return header, found, content[at:]


def _is_plain(text: str) -> bool:
    """Whether a text holds nothing hidden in whatever pieces, nor outside the basic plane."""
    return HIDDEN.search(text) is None and (
        text.isascii() or (max(text) <= _BASIC and not _JOINS & set(text))
    )


def _beyond(text: str) -> int:
    """How many characters lie outside the basic plane, which take two units of UTF-16."""
    return 0 if text.isascii() else sum(character > _BASIC for character in text)


def _varints(numbers: Iterable[int]) -> bytes:
    found = bytearray()
    for number in numbers:
        while number >= 128:
            found.append(number & 127 | 128)
            number >>= 7
        found.append(number)
    return bytes(found)


def _levels(parts: list[Values], span: tuple[float, float]) -> bytes:
    if not parts:
        return b""
    values = np.concatenate(parts).astype(np.float64) / ACTIVATION_SCALE
    low, high = span
    width = high - low or 1.0
    return np.rint((values - low) / width * _LEVELS).astype(np.uint8).tobytes()
