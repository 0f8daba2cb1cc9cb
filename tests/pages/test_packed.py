"""What is packed for a page's script comes out again, to the character and half a step."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.pages.packed import VERSION, Packer, from_letters, letters, unpacked
from builder.records import ACTIVATION_SCALE, Example, Window
from tests.pages.packing import pieces_of
from tests.pages.windows import UNTIMED, examples, windows

#: What may stand between the quotes of a script inside a page.
ALLOWED = {chr(code) for code in range(33, 127)} - set('"\\<')


@UNTIMED
@given(st.lists(windows(), max_size=4))
def test_texts_come_out_in_the_same_pieces(held: list[Window]) -> None:
    packer = Packer()
    script = packer.file("page", {"texts": [packer.text(window) for window in held], "also": "é"})
    header, pieces, rest = unpacked(script)
    assert (header["v"], header["also"], header["base"], rest) == (VERSION, "é", False, b"")
    for window, (_, n, unusual), own in zip(held, header["texts"], pieces, strict=True):
        texts, tokens = pieces_of(window)
        assert own == texts
        several = dict(map(tuple, unusual))
        assert [several.get(at, 1) for at in range(n)] == tokens


@pytest.mark.parametrize("character", ["\u200d", "\ufe0f"])
def test_what_joins_pictures_is_named_where_it_is_a_token_of_its_own(character: str) -> None:
    for tokens, is_named in ((["❤", character, "❤"], True), ([f"❤{character}❤"], False)):
        ends = np.cumsum([len(token) for token in tokens], dtype=np.uint32)
        packer, window = Packer(), Window(0, "s", 0, "".join(tokens), ends)
        _, (pieces,), _ = unpacked(packer.file("page", {"texts": [packer.text(window)]}))
        assert pieces == pieces_of(window)[0]
        assert (character not in "".join(pieces)) == is_named


@UNTIMED
@given(st.lists(examples(with_base=True), max_size=4), st.booleans())
def test_activations_come_out_within_half_a_step(held: list[Example], with_base: bool) -> None:
    packer = Packer()
    for example in held:
        packer.values(example.activations, example.base_activations if with_base else None)
    header, _, rest = unpacked(packer.file("page", {"texts": []}))
    given = [example.activations for example in held]
    base = [example.base_activations for example in held] if with_base else []
    wanted = np.concatenate([np.zeros(0, np.int16), *given, *base]) / ACTIVATION_SCALE
    assert header["base"] == (with_base and bool(held))
    low, high = header["span"]
    if len(wanted):
        assert (low, high) == pytest.approx((wanted.min(), wanted.max()), abs=1e-6)
    found = low + np.frombuffer(rest, np.uint8) / 255 * (high - low)
    assert len(found) == len(wanted)
    assert np.all(np.abs(found - wanted) <= (high - low) / 510 + 2e-6)


def test_the_base_is_left_out_where_it_is_not_known_of_all() -> None:
    values = np.asarray([1, 2], dtype=np.int16)
    packer = Packer()
    packer.values(values, -values)
    assert packer.has_base
    packer.values(values, None)
    header, _, rest = unpacked(packer.file("page", {"texts": []}))
    assert (packer.has_base, header["base"], len(rest)) == (False, False, 4)
    # What is left out does not widen the steps either.
    assert packer.span() == pytest.approx((1 / ACTIVATION_SCALE, 2 / ACTIVATION_SCALE))


@UNTIMED
@given(st.binary(max_size=400))
def test_bytes_come_back_from_letters(content: bytes) -> None:
    written = letters(content)
    assert set(written.decode()) <= ALLOWED
    assert len(written) == 2 * -(-8 * len(content) // 13)
    found = from_letters(written)
    assert found[: len(content)] == content
    assert found[len(content) :] in (b"", b"\0")


def test_every_number_of_thirteen_bits_has_letters_of_its_own() -> None:
    bits = np.unpackbits(np.arange(8192, dtype=">u2").view(np.uint8)).reshape(-1, 16)[:, 3:]
    content = np.packbits(bits.ravel()).tobytes()
    written = letters(content)
    pairs = {written[at : at + 2] for at in range(0, len(written), 2)}
    assert len(pairs) == 8192
    assert from_letters(written) == content


@UNTIMED
@given(st.lists(windows(), max_size=2))
def test_a_file_is_one_call_that_no_text_ends(held: list[Window]) -> None:
    packer = Packer()
    said = "</script>\"\\\u2028'"
    script = packer.file("page", {"texts": [packer.text(window) for window in held], "said": said})
    assert script.startswith(b"WA.page(")
    assert script.endswith(b'");\n')
    size, _, quoted = script[len(b"WA.page(") : -len(b'");\n')].partition(b',"')
    assert set(quoted.decode()) <= ALLOWED
    assert 0 < int(size) <= len(quoted)
    assert unpacked(script)[0]["said"] == said


def test_the_same_texts_give_the_same_bytes() -> None:
    window = Window(0, "s", 0, "a\u202e🎉b", np.asarray([1, 2, 3, 3, 4], dtype=np.uint32))

    def made() -> bytes:
        packer = Packer()
        packer.values(np.arange(5, dtype=np.int16), None)
        return packer.file("page", {"texts": [packer.text(window)]})

    assert made() == made()
    header, _, _ = unpacked(made())
    assert json.loads(json.dumps(header)) == header
