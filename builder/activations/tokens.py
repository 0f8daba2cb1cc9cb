"""Which token of a document belongs to whom? Chat template, tokens, character offsets and roles.

A conversation is rendered by the model's own chat template. To know which characters are whose,
the template is rendered a second time with a placeholder in place of every content: what stands
between the placeholders is the template's. If putting the contents back gives the rendered text,
the spans are exact; if not (templates that rewrite contents), the rendering of growing prefixes
decides, content being looked for between what the template puts before and after it; if that fails
too, the document is dropped and counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jinja2
import numpy as np
import numpy.typing as npt

from builder.activations.corpus import Document
from builder.errors import CheckpointError
from builder.records import ROLES

_ROLE_INDEX = {role: index for index, role in enumerate(ROLES)}
_TEMPLATE = _ROLE_INDEX["template"]
#: Characters per token that no tokenizer exceeds on text worth reading; longer documents are cut
#: here before tokenization, so that a 2 MB document costs no more than a long one.
_MAX_CHARS_PER_TOKEN = 32


@dataclass(frozen=True, slots=True, eq=False)
class TokenizedDocument:
    """A document, or a piece of a long one, as the model reads it.

    ``ids`` int32 [T]; ``ends`` int64 [T], character offset in ``text`` (the piece's own) where each
    token ends, non-decreasing; ``roles`` uint8 [T], indices into ROLES; ``special`` bool [T], the
    BOS token; ``cut`` says that tokens beyond the limit were dropped. Token i is token ``first`` +
    i of the document; the first ``context`` tokens belong to the piece before and only give
    context. ``notes`` say what had to be done to it, to be counted.
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


@dataclass(frozen=True, slots=True)
class _Rendered:
    document: Document
    text: str
    spans: tuple[tuple[int, int, int], ...]  # (first character, end, role index), in order
    add_special_tokens: bool


class DocumentTokenizer:
    """Turns documents into tokens with roles, by one model's tokenizer and chat template."""

    def __init__(
        self, tokenizer: Any, max_tokens: int, *, long_documents: str = "cut", overlap: int = 0
    ) -> None:
        """``tokenizer`` is a fast Hugging Face tokenizer; documents are cut to ``max_tokens``."""
        if not getattr(tokenizer, "is_fast", False):
            raise CheckpointError(
                "the tokenizer has no fast version (tokenizer.json), which is needed to know "
                "which characters a token stands for"
            )
        self._tokenizer = tokenizer
        self._max_tokens = max_tokens
        self._skeletons: dict[tuple[str, ...], list[str] | None] = {}
        self._bos = tokenizer.bos_token_id
        self.has_template = bool(getattr(tokenizer, "chat_template", None))

    def tokenize(self, documents: Sequence[Document]) -> list[TokenizedDocument | Dropped]:
        """One result per document, in order."""
        rendered = [self._render(document) for document in documents]
        results: list[TokenizedDocument | Dropped | None] = [
            item if isinstance(item, Dropped) else None for item in rendered
        ]
        for special in (False, True):
            places = [
                place
                for place, item in enumerate(rendered)
                if isinstance(item, _Rendered) and item.add_special_tokens is special
            ]
            group = [item for place in places if isinstance(item := rendered[place], _Rendered)]
            for place, result in zip(places, self._encode(group, special), strict=True):
                results[place] = result
        return [item for item in results if item is not None]

    def _encode(
        self, rendered: Sequence[_Rendered], add_special_tokens: bool
    ) -> list[TokenizedDocument | Dropped]:
        if not rendered:
            return []
        limit = self._max_tokens * _MAX_CHARS_PER_TOKEN
        encoded = self._tokenizer(
            [item.text[:limit] for item in rendered],
            add_special_tokens=add_special_tokens,
            return_offsets_mapping=True,
            return_attention_mask=False,
            truncation=False,
            verbose=False,
        )
        return [
            self._document(item, ids, offsets)
            for item, ids, offsets in zip(
                rendered, encoded["input_ids"], encoded["offset_mapping"], strict=True
            )
        ]

    def _document(
        self, item: _Rendered, ids: list[int], offsets: list[tuple[int, int]]
    ) -> TokenizedDocument | Dropped:
        document = item.document
        if not ids:
            return Dropped(document.doc_id, "no tokens")
        cut = len(ids) > self._max_tokens or len(item.text) > self._max_tokens * (
            _MAX_CHARS_PER_TOKEN
        )
        tokens = np.asarray(ids[: self._max_tokens], dtype=np.int32)
        spans = np.asarray(offsets[: self._max_tokens], dtype=np.int64).reshape(-1, 2)
        ends = np.maximum.accumulate(spans[:, 1])
        text = item.text[: int(ends[-1])] if cut else item.text
        roles = _token_roles(item.spans, spans, ends)
        special = (
            np.zeros(len(tokens), dtype=np.bool_) if self._bos is None else tokens == self._bos
        )
        return TokenizedDocument(
            document=document,
            piece=0,
            first=0,
            context=0,
            text=text,
            ids=tokens,
            ends=ends,
            roles=roles,
            special=special,
            cut=cut,
        )

    def _render(self, document: Document) -> _Rendered | Dropped:
        if not document.messages:
            whole = (0, len(document.text), _ROLE_INDEX["text"])
            return _Rendered(document, document.text, (whole,), add_special_tokens=True)
        if not self.has_template:
            return Dropped(document.doc_id, "conversation, but the tokenizer has no chat template")
        try:
            text = self._apply(document.messages)
            spans = self._spans_by_skeleton(document.messages, text)
            if spans is None:
                spans = self._spans_by_prefix(document.messages, text)
        except (jinja2.TemplateError, TypeError, ValueError, KeyError, IndexError):
            return Dropped(document.doc_id, "the chat template refuses this conversation")
        if spans is None:
            return Dropped(document.doc_id, "roles cannot be told apart in the rendered text")
        return _Rendered(document, text, spans, add_special_tokens=False)

    def _apply(self, messages: Sequence[tuple[str, str]]) -> str:
        chat = [{"role": role, "content": content} for role, content in messages]
        return str(self._tokenizer.apply_chat_template(chat, tokenize=False))

    def _spans_by_skeleton(
        self, messages: Sequence[tuple[str, str]], text: str
    ) -> tuple[tuple[int, int, int], ...] | None:
        roles = tuple(role for role, _ in messages)
        pieces = self._pieces(roles)
        if pieces is None:
            return None
        for contents in (
            [content for _, content in messages],
            [content.strip() for _, content in messages],
        ):
            spans: list[tuple[int, int, int]] = []
            at = len(pieces[0])
            for role, content, piece in zip(roles, contents, pieces[1:], strict=True):
                spans.append((at, at + len(content), _ROLE_INDEX[role]))
                at += len(content) + len(piece)
            if at == len(text) and text == _interleave(pieces, contents):
                return tuple(spans)
        return None

    def _pieces(self, roles: tuple[str, ...]) -> list[str] | None:
        if roles not in self._skeletons:
            self._skeletons[roles] = self._skeleton(roles)
        return self._skeletons[roles]

    def _skeleton(self, roles: tuple[str, ...]) -> list[str] | None:
        """The template's own text before, between and after the contents of such a chat."""
        marks = [f"\ue000{number}\ue001" for number in range(len(roles))]
        rest = self._apply(list(zip(roles, marks, strict=True)))
        pieces: list[str] = []
        for mark in marks:
            piece, found, rest = rest.partition(mark)
            if not found or mark in rest:
                return None
            pieces.append(piece)
        return [*pieces, rest]

    def _spans_by_prefix(
        self, messages: Sequence[tuple[str, str]], text: str
    ) -> tuple[tuple[int, int, int], ...] | None:
        roles = tuple(role for role, _ in messages)
        spans: list[tuple[int, int, int]] = []
        at = 0
        for number, (role, content) in enumerate(messages):
            prefix = self._apply(messages[: number + 1])
            common = len(prefix) if text.startswith(prefix) else _common(text, prefix)
            pieces = self._pieces(roles[: number + 1])
            header, closing = pieces[-2:] if pieces else ("", "")
            at += len(header) if text.startswith(header, at) else 0
            stop = max(at, min(common, len(prefix.removesuffix(closing))))
            wanted = content.strip()
            if text[at:stop].strip() == wanted:
                start, end = at, stop
            else:
                # From the right: what the template adds, like a header, stands before the content.
                start = text.rfind(wanted, at, stop)
                end = start + len(wanted)
            if start < 0:
                return None
            spans.append((start, end, _ROLE_INDEX[role]))
            at = end
        return tuple(spans)


def _interleave(pieces: Sequence[str], contents: Sequence[str]) -> str:
    parts = [pieces[0]]
    for content, piece in zip(contents, pieces[1:], strict=True):
        parts += [content, piece]
    return "".join(parts)


def _common(one: str, two: str) -> int:
    limit = min(len(one), len(two))
    return next((at for at in range(limit) if one[at] != two[at]), limit)


def _token_roles(
    spans: Sequence[tuple[int, int, int]],
    offsets: npt.NDArray[np.int64],
    ends: npt.NDArray[np.int64],
) -> npt.NDArray[np.uint8]:
    """Role of each token [T]: of the span that holds its last character, else ``template``."""
    roles = np.full(len(ends), _TEMPLATE, dtype=np.uint8)
    starts = np.asarray([span[0] for span in spans], dtype=np.int64)
    stops = np.asarray([span[1] for span in spans], dtype=np.int64)
    indices = np.asarray([span[2] for span in spans], dtype=np.uint8)
    last = ends - 1
    place = np.searchsorted(starts, last, side="right") - 1
    # Tokens without characters of their own (BOS added by the tokenizer) belong to the template.
    inside = (place >= 0) & (last < stops[np.maximum(place, 0)]) & (offsets[:, 1] > offsets[:, 0])
    roles[inside] = indices[place[inside]]
    return roles
