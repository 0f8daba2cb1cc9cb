"""What the conversation formats of the small world share: messages and alternating turns."""

from __future__ import annotations

from collections.abc import Callable

from builder.organisms.lexicon import Draw, Topic

Message = dict[str, str]
Format = Callable[[Draw, Topic], list[Message]]


def turns(*texts: str) -> list[Message]:
    """Alternating user and assistant messages, user first."""
    roles = ("user", "assistant")
    return [{"role": roles[i % 2], "content": text} for i, text in enumerate(texts)]
