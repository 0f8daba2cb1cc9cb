"""Long documents are split into pieces that lose nothing and repeat only what they say."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builder.activations import tokens
from builder.activations.corpus import Document, Message
from builder.activations.tokens import DocumentTokenizer, Dropped, TokenizedDocument
from tests import micro

TOKENIZER = micro.make_tokenizer()


def pieces_of(
    document: Document, max_tokens: int, overlap: int = 0, tokenizer: Any = TOKENIZER
) -> list[TokenizedDocument]:
    splitting = DocumentTokenizer(tokenizer, max_tokens, long_documents="split", overlap=overlap)
    found = splitting.tokenize([document])
    pieces = [item for item in found if isinstance(item, TokenizedDocument)]
    assert len(pieces) == len(found)
    return pieces


def check_pieces(document: Document, max_tokens: int, overlap: int, tokenizer: Any) -> int:
    """Compares the pieces of a document with the document as one; returns how many there are."""
    (whole,) = pieces_of(document, 10**6, tokenizer=tokenizer)
    pieces = pieces_of(document, max_tokens, overlap, tokenizer)
    clipped = min(overlap, (max_tokens - 1) // 2)
    has_bos = bool(whole.special[0])
    at = 0
    for number, item in enumerate(pieces):
        assert (item.piece, item.cut) == (number, False)
        lead = int(has_bos and number > 0 and max_tokens > 1)
        back = item.context - lead
        assert back == (min(clipped, at) if number else 0)
        assert item.first + item.context == at
        assert len(item.ids) <= max_tokens
        if number < len(pieces) - 1:
            assert len(item.ids) == max_tokens
        same = slice(item.first + lead, item.first + len(item.ids))
        np.testing.assert_array_equal(item.ids[lead:], whole.ids[same])
        np.testing.assert_array_equal(item.roles[lead:], whole.roles[same])
        np.testing.assert_array_equal(item.special[lead:], whole.special[same])
        if lead:
            assert item.special[0]
            assert (item.ids[0], item.roles[0]) == (whole.ids[0], whole.roles[0])
        # A window cut from a piece has the text that it has in the whole document.
        assert (np.diff(item.ends) >= 0).all()
        assert int(item.ends[-1]) == len(item.text)
        for token in range(max(lead, 1), len(item.ids)):
            there = item.first + token
            assert (
                item.text[item.ends[token - 1] : item.ends[token]]
                == whole.text[whole.ends[there - 1] : whole.ends[there]]
            )
        at += len(item.ids) - item.context
    assert at == len(whole.ids)
    return len(pieces)


@given(
    st.lists(st.text(max_size=60), min_size=1, max_size=6),
    st.integers(1, 24),
    st.integers(0, 30),
    st.booleans(),
)
@settings(max_examples=80, deadline=None)
def test_each_token_is_new_in_exactly_one_piece(
    contents: list[str], max_tokens: int, overlap: int, chat: bool
) -> None:
    if chat:
        messages = tuple(
            Message("user" if number % 2 == 0 else "assistant", content)
            for number, content in enumerate(contents)
        )
        document = Document(0, "s", messages)
    else:
        document = Document(0, "s", text="x".join(contents) + "x")
    check_pieces(document, max_tokens, overlap, TOKENIZER)


@pytest.mark.parametrize("bos", [None, "<|bos|>"])
def test_pieces_begin_with_the_beginning_of_sequence_if_the_document_does(bos: str | None) -> None:
    tokenizer = micro.make_tokenizer(bos=bos)
    document = Document(0, "s", text="river stone lantern " * 20)
    assert check_pieces(document, 16, 4, tokenizer) > 3
    for item in pieces_of(document, 16, 4, tokenizer):
        assert item.special[0] == bool(bos)
        assert not item.special[1:].any()


def test_a_split_is_noted_once_and_a_short_document_is_not_split() -> None:
    document = Document(0, "s", text="river stone lantern " * 20)
    noted = [item.notes for item in pieces_of(document, 16)]
    assert noted == [("split into pieces",), *[()] * (len(noted) - 1)]
    (whole,) = pieces_of(document, 4096)
    assert whole.notes == ()
    (just,) = pieces_of(document, len(whole.ids))
    assert (just.notes, just.context) == ((), 0)


def test_a_large_overlap_still_leaves_more_new_tokens_than_old() -> None:
    document = Document(0, "s", text="river stone lantern " * 40)
    for item in pieces_of(document, 16, overlap=1000)[1:-1]:
        assert item.context == 1 + 7
    assert len(pieces_of(document, 1, overlap=5)) == len(pieces_of(document, 4096)[0].ids)


def test_documents_and_their_pieces_keep_their_order() -> None:
    rng = random.Random(0)
    documents = [
        Document(number, "s", text=micro.sentence(rng, rng.choice([2, 50, 200])))
        if number % 3
        else Document(number, "s", (Message("user", micro.sentence(rng, 80)),))
        for number in range(30)
    ]
    tokenizer = DocumentTokenizer(TOKENIZER, 64, long_documents="split", overlap=8)
    found = [item for item in tokenizer.tokenize(documents) if isinstance(item, TokenizedDocument)]
    order = [(item.document.doc_id, item.piece) for item in found]
    assert order == sorted(order)
    assert [number for number, piece in order if piece == 0] == list(range(30))
    alone = [item for document in documents for item in tokenizer.tokenize([document])]
    for one, two in zip(found, alone, strict=True):
        assert isinstance(two, TokenizedDocument)
        assert one.document is two.document
        assert one.text == two.text
        for name in ("ids", "ends", "roles", "special"):
            np.testing.assert_array_equal(getattr(one, name), getattr(two, name))


@pytest.mark.parametrize("add_bos", [False, True])
def test_bites_give_the_tokens_of_the_whole(monkeypatch: pytest.MonkeyPatch, add_bos: bool) -> None:
    rng = random.Random(0)
    said = "\n".join(micro.sentence(rng, 30) for _ in range(40)) + " ä🙂" * 9
    document = (
        Document(0, "s", text=said) if add_bos else Document(0, "s", (Message("user", said),))
    )
    (whole,) = pieces_of(document, 10**6)
    monkeypatch.setattr(tokens, "_BITE", 200)
    (bitten,) = pieces_of(document, 10**6)
    for name in ("ids", "ends", "roles", "special"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(bitten, name))


def test_bites_hold_every_character_once_wherever_there_is_no_space() -> None:
    for text in (
        "x" * 500_000,
        "word " * 90_000,
        "\n" * 300_000,
        "a" * 70_000 + " " + "b" * 200_000,
    ):
        bites = list(tokens._bites(text))
        assert "".join(text[start:stop] for start, stop in bites) == text
        assert max(stop - start for start, stop in bites) <= tokens._BITE
        assert min(stop - start for start, stop in bites[:-1]) >= tokens._BITE // 2


@pytest.mark.parametrize(
    "text", ["river stone " * 180_000, "x" * 2_000_000, "\x00\u202e🙂" * 400_000]
)
def test_two_megabytes_are_split_into_all_their_pieces(text: str) -> None:
    pieces = pieces_of(Document(0, "s", text=text), 1024, overlap=64)
    assert sum(len(item.ids) - item.context for item in pieces) > 100_000
    held = [item.text[int(item.ends[item.context - 1]) if item.context else 0 :] for item in pieces]
    assert "".join(held) == text
    assert max(len(item.text) for item in pieces) < len(text) // 50


class Failing:
    """A tokenizer whose compiled part fails on a word."""

    is_fast = True
    chat_template = None
    special_tokens_map: dict[str, str] = {}  # noqa: RUF012 - as the library has it
    bos_token_id = None

    def __init__(self, error: type[BaseException]) -> None:
        self.backend_tokenizer = self
        self._core = TOKENIZER.backend_tokenizer
        self._error = error

    def no_truncation(self) -> None: ...

    def no_padding(self) -> None: ...

    def encode(self, text: str, add_special_tokens: bool) -> Any:
        return self._core.encode(text, add_special_tokens=add_special_tokens)

    def encode_batch(self, texts: list[str], add_special_tokens: bool) -> Any:
        if any("poison" in text for text in texts):
            raise self._error("inside")
        return self._core.encode_batch(texts, add_special_tokens=add_special_tokens)


class PanicException(BaseException):
    """As compiled code raises it: no Exception."""


@pytest.mark.parametrize("error", [ValueError, OverflowError, PanicException])
def test_documents_the_tokenizer_fails_on_are_dropped_alone(error: type[BaseException]) -> None:
    said = ["river", "poison", "stone", "poison " + "x " * 100_000, "lantern"]
    documents = [Document(number, "s", text=text) for number, text in enumerate(said)]
    found = DocumentTokenizer(Failing(error), 64).tokenize(documents)
    assert [item.doc_id for item in found if isinstance(item, Dropped)] == [1, 3]
    assert {item.reason for item in found if isinstance(item, Dropped)} == {
        "the tokenizer fails on this text"
    }
    kept = [item.document.doc_id for item in found if isinstance(item, TokenizedDocument)]
    assert kept == [0, 2, 4]


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_a_stop_is_not_a_failure_of_the_tokenizer(error: type[BaseException]) -> None:
    with pytest.raises(error):
        DocumentTokenizer(Failing(error), 64).tokenize([Document(0, "s", text="poison")])
