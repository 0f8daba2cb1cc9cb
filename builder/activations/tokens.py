"""Which tokens does the model read, and whose are they? Token ids, characters, roles, pieces.

Documents are encoded in batches, with the characters that each token stands for; a token belongs
to the role that its last character has in the rendered text (see ``roles``). A document longer than
the model may read is cut, or split into pieces of which each further one begins with a few tokens
of the piece before as context.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from builder.activations.corpus import Document
from builder.activations.roles import ROLE_INDEX, ChatRenderer, Rendered
from builder.errors import CheckpointError

_TEMPLATE, _ASSISTANT = ROLE_INDEX["template"], ROLE_INDEX["assistant"]
#: Characters per token that no tokenizer exceeds on text worth reading; documents that are to be
#: cut are cut here before tokenization, so that a 2 MB document costs no more than a long one.
_MAX_CHARS_PER_TOKEN = 32
#: Longer texts are encoded bite by bite, which bounds memory; a bite ends before white space.
_BITE = 1 << 17
#: Characters encoded at once.
_BATCH = 1 << 20


@dataclass(frozen=True, slots=True, eq=False)
class TokenizedDocument:
    """A document, or a piece of a long one, as the model reads it.

    ``ids`` int32 [T]; ``ends`` int64 [T], character offset in ``text`` (the piece's own) where each
    token ends, non-decreasing; ``roles`` uint8 [T], indices into ROLES; ``special`` bool [T], the
    BOS token; ``cut`` says that tokens beyond the limit were dropped. Token i is token ``first`` +
    i of the document (but for a BOS that a further piece begins with); the first ``context`` tokens
    belong to the piece before and only give context. ``notes`` say what had to be done to the
    document, to be counted; they stand at its first piece.
    """

    document: Document
    piece: int
    first: int
    context: int
    text: str
    ids: npt.NDArray[np.int32]
    ends: npt.NDArray[np.int64]
    roles: npt.NDArray[np.uint8]
    special: npt.NDArray[np.bool_]
    cut: bool
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Dropped:
    """A document the model cannot be shown, and why."""

    doc_id: int
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class _Encoded:
    """Tokens of a whole text: ids [T] and their characters [T, 2]."""

    ids: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.int64]


class DocumentTokenizer:
    """Turns documents into tokens with roles, by one model's tokenizer and chat template."""

    def __init__(
        self,
        tokenizer: Any,
        max_tokens: int,
        *,
        long_documents: Literal["split", "cut"] = "cut",
        overlap: int = 0,
    ) -> None:
        """``tokenizer`` is a fast Hugging Face tokenizer; no piece is longer than ``max_tokens``.

        An ``overlap`` of half a piece or more is lowered to just under half, so that every further
        piece has more new tokens than old ones.
        """
        if not getattr(tokenizer, "is_fast", False):
            raise CheckpointError(
                "the tokenizer has no fast version (tokenizer.json), which is needed to know "
                "which characters a token stands for"
            )
        # The library's own call does the same and takes twice as long.
        self._backend = tokenizer.backend_tokenizer
        self._backend.no_truncation()
        self._backend.no_padding()
        self._renderer = ChatRenderer(tokenizer)
        self._max_tokens = max_tokens
        self._splits = long_documents == "split"
        self._overlap = min(overlap, (max_tokens - 1) // 2)
        self._bos = tokenizer.bos_token_id
        self.has_template = self._renderer.has_template

    def tokenize(self, documents: Sequence[Document]) -> list[TokenizedDocument | Dropped]:
        """Every document in order: its pieces in order, or that it was dropped."""
        rendered = [self._renderer.render(document) for document in documents]
        encoded: list[_Encoded | str | None] = [None] * len(documents)
        for is_chat in (False, True):
            short: list[int] = []
            size = 0
            for place, item in enumerate(rendered):
                if isinstance(item, str) or item.is_chat is not is_chat:
                    continue
                if len(item.text) > _BITE:
                    encoded[place] = self._encode_long(self._shown(item), not is_chat)
                    continue
                short.append(place)
                size += len(item.text)
                if size >= _BATCH:
                    self._encode_short(short, rendered, encoded, not is_chat)
                    short, size = [], 0
            self._encode_short(short, rendered, encoded, not is_chat)
        results: list[TokenizedDocument | Dropped] = []
        for document, item, tokens in zip(documents, rendered, encoded, strict=True):
            if isinstance(item, str):
                results.append(Dropped(document.doc_id, item))
            elif isinstance(tokens, str):
                results.append(Dropped(document.doc_id, tokens))
            elif tokens is None or not len(tokens.ids):
                results.append(Dropped(document.doc_id, "no tokens"))
            else:
                results += self._pieces(document, item, tokens)
        return results

    def _shown(self, item: Rendered) -> str:
        """What is encoded of a text: all of it, unless it is to be cut anyway."""
        limit = self._max_tokens * _MAX_CHARS_PER_TOKEN
        return item.text if self._splits else item.text[:limit]

    def _encode_short(
        self,
        places: Sequence[int],
        rendered: Sequence[Rendered | str],
        encoded: list[_Encoded | str | None],
        add_special_tokens: bool,
    ) -> None:
        """Fills in the tokens of the texts at ``places``, or why there are none."""
        texts = [self._shown(item) for at in places if isinstance(item := rendered[at], Rendered)]
        results = self._encode(texts, add_special_tokens)
        if results is None:  # one of them is the reason
            for place, text in zip(places, texts, strict=True):
                alone = self._encode([text], add_special_tokens)
                encoded[place] = "the tokenizer fails on this text" if alone is None else alone[0]
            return
        for place, result in zip(places, results, strict=True):
            encoded[place] = result

    def _encode(self, texts: Sequence[str], add_special_tokens: bool) -> list[_Encoded] | None:
        """Tokens of each text; None if the tokenizer fails on any."""
        if not texts:
            return []
        try:
            found = self._backend.encode_batch(list(texts), add_special_tokens=add_special_tokens)
        except (KeyboardInterrupt, SystemExit, MemoryError):
            raise
        # Compiled code: its panics are no Exception.
        except BaseException:  # noqa: BLE001 - the document is dropped, and counted with its reason
            return None
        counts = [len(item) for item in found]
        total = sum(counts)
        ids = np.fromiter(
            itertools.chain.from_iterable(item.ids for item in found), np.int32, total
        )
        flat = itertools.chain.from_iterable(item.offsets for item in found)
        offsets = np.fromiter(itertools.chain.from_iterable(flat), np.int64, 2 * total)
        pairs = offsets.reshape(-1, 2)
        bounds = np.cumsum([0, *counts])
        return [
            _Encoded(ids[start:stop], pairs[start:stop])
            for start, stop in itertools.pairwise(bounds.tolist())
        ]

    def _encode_long(self, text: str, add_special_tokens: bool) -> _Encoded | str:
        """Tokens of a text of any length, encoded bite by bite."""
        ids: list[npt.NDArray[np.int32]] = []
        offsets: list[npt.NDArray[np.int64]] = []
        for start, stop in _bites(text):
            found = self._encode([text[start:stop]], False)
            if found is None:
                return "the tokenizer fails on this text"
            ids.append(found[0].ids)
            offsets.append(found[0].offsets + start)
        before, after = self._around() if add_special_tokens else ([], [])
        ends = np.full((len(after), 2), len(text), dtype=np.int64)
        return _Encoded(
            np.concatenate([np.asarray(before, np.int32), *ids, np.asarray(after, np.int32)]),
            np.concatenate([np.zeros((len(before), 2), dtype=np.int64), *offsets, ends]),
        )

    def _around(self) -> tuple[list[int], list[int]]:
        """The special tokens that the tokenizer puts before and after a plain text."""
        found = self._backend.encode("a", add_special_tokens=True)
        at = found.special_tokens_mask.index(0)
        after = at + found.special_tokens_mask.count(0)
        return found.ids[:at], found.ids[after:]

    def _pieces(
        self, document: Document, item: Rendered, tokens: _Encoded
    ) -> Iterator[TokenizedDocument]:
        limit, total = self._max_tokens, len(tokens.ids)
        shown = len(self._shown(item))
        cut = not self._splits and (total > limit or shown < len(item.text))
        end = min(total, limit) if cut else total
        ids, offsets = tokens.ids[:end], tokens.offsets[:end]
        ends = np.maximum.accumulate(offsets[:, 1])
        roles = _token_roles(item, offsets, ends)
        special = np.zeros(end, dtype=np.bool_) if self._bos is None else ids == self._bos
        notes = item.notes if end <= limit else (*item.notes, "split into pieces")
        if end <= limit:
            text = item.text[: int(ends[-1])] if cut else item.text
            yield TokenizedDocument(document, 0, 0, 0, text, ids, ends, roles, special, cut, notes)
            return
        # Further pieces begin with the BOS too: the first position of every text the model knows.
        bos = int(special[0]) if limit > 1 else 0
        new, piece = 0, 0
        while new < end:
            back = min(self._overlap, new) if piece else 0
            lead = bos if piece else 0
            start = new - back
            stop = min(end, start - lead + limit)
            begin = int(ends[start - 1]) if start else 0
            last = len(item.text) if stop == end else int(ends[stop - 1])
            head = item.text[: int(ends[0])] if lead else ""
            rows = np.concatenate([np.arange(lead), np.arange(start, stop)])
            own = ends[rows]
            own[lead:] += len(head) - begin
            yield TokenizedDocument(
                document,
                piece,
                start - lead,
                lead + back,
                head + item.text[begin:last],
                ids[rows],
                own,
                roles[rows],
                special[rows],
                cut,
                notes,
            )
            new, piece, notes = stop, piece + 1, ()


def _bites(text: str) -> Iterator[tuple[int, int]]:
    """Where the bites of a text begin and end: before white space, if there is any near."""
    start = 0
    while start < len(text):
        stop = start + _BITE
        if stop < len(text):
            spaces = (text.rfind(space, start + _BITE // 2, stop) for space in ("\n", " "))
            stop = next((at for at in spaces if at > start), stop)
        else:
            stop = len(text)
        yield start, stop
        start = stop


def _token_roles(
    item: Rendered, offsets: npt.NDArray[np.int64], ends: npt.NDArray[np.int64]
) -> npt.NDArray[np.uint8]:
    """Role of each token [T]: of the span that holds its last character, else ``template``.

    Where the template says what the assistant generates, each token that has a character of it is
    the assistant's, as in the mask that the model was trained by.
    """
    roles = np.full(len(ends), _TEMPLATE, dtype=np.uint8)
    # Tokens without characters of their own (BOS added by the tokenizer) belong to the template.
    visible = offsets[:, 1] > offsets[:, 0]
    if item.spans:
        starts, stops, indices = np.asarray(item.spans, dtype=np.int64).T
        last = ends - 1
        place = np.searchsorted(starts, last, side="right") - 1
        inside = (place >= 0) & (last < stops[np.maximum(place, 0)]) & visible
        roles[inside] = indices[place[inside]]
    if item.generated:
        starts, stops = np.asarray(item.generated, dtype=np.int64).T
        place = np.searchsorted(starts, offsets[:, 1], side="left") - 1
        roles[(place >= 0) & (offsets[:, 0] < stops[np.maximum(place, 0)]) & visible] = _ASSISTANT
    return roles
