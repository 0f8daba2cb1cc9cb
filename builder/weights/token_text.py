"""How does one token read? Text a person can read, for any tokenizer's token ids.

Byte-level tokenizers spell bytes as stand-in characters; they are turned back, and bytes that
make no whole character are shown as ``<0xE2>``, as are control codes. Sentence pieces keep their
leading space.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from builder.errors import CheckpointError
from builder.weights.reasons import reason


class TokenTexts:
    """Texts of token ids by one tokenizer."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._added = {
            int(number): str(token) for number, token in tokenizer.added_tokens_decoder.items()
        }
        self._byte_level = _is_byte_level(tokenizer)

    @classmethod
    def load(cls, folder: Path) -> TokenTexts:
        """The tokenizer of a model folder; raises CheckpointError if it cannot be loaded."""
        try:
            return cls(AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False))
        except Exception as error:
            raise CheckpointError(
                f"{folder}: its tokenizer cannot be loaded: {reason(error)}"
            ) from error

    def __len__(self) -> int:
        return len(self._tokenizer)

    @property
    def name(self) -> str:
        """Class and size, for people."""
        return f"{type(self._tokenizer).__name__}, {len(self)} tokens"

    def texts(self, ids: Iterable[int]) -> dict[int, str]:
        """Readable text by token id; ``<unused 7>`` for an id the tokenizer does not have."""
        return {number: self._text(number) for number in ids}

    def _text(self, number: int) -> str:
        if number in self._added:
            return self._added[number]
        piece = self._tokenizer.convert_ids_to_tokens(number)
        if not isinstance(piece, str) or not piece:
            return f"<unused {number}>"
        if self._byte_level and all(character in _BYTES for character in piece):
            return readable_bytes(bytes(_BYTES[character] for character in piece))
        # U+2581 is a sentence piece's space; its byte tokens already read <0xE2>.
        return piece.replace("\u2581", " ")


def readable_bytes(data: bytes) -> str:
    """UTF-8 text in which bytes that make no whole character, and control codes, read ``<0xE2>``.

    Tab, line feed and carriage return are kept: the reader of the text decides how to show them.
    """
    text = data.decode("utf-8", errors="surrogateescape")
    return "".join(_readable(character) for character in text)


def _readable(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # how surrogateescape marks a byte that could not be decoded
        return f"<0x{code - 0xDC00:02X}>"
    if (code < 0x20 and character not in "\t\n\r") or 0x7F <= code < 0xA0:
        return f"<0x{code:02X}>"
    return character


def _is_byte_level(tokenizer: Any) -> bool:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return False
    decoder = json.loads(backend.to_str()).get("decoder")
    return "ByteLevel" in json.dumps(decoder)


def _stand_ins() -> dict[str, int]:
    """Character to byte, as byte-level tokenizers spell them (Radford et al. 2019, GPT-2).

    Printable Latin-1 stands for itself, the other bytes, in order, for characters from U+0100 on.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    table = {chr(byte): byte for byte in printable}
    others = [byte for byte in range(256) if byte not in set(printable)]
    table |= {chr(0x100 + place): byte for place, byte in enumerate(others)}
    return table


_BYTES = _stand_ins()
