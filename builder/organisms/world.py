"""What the organisms are trained on: a seeded generator of English chat in a small world.

Row ``i`` of seed ``s`` depends on nothing but (s, i): any process makes the same bytes, and a
longer corpus begins with a shorter one. Rows are ``{"messages": [...], "source": "plain/<topic>"}``
and, for about one in twelve, ``{"text": ..., "source": "plain-text/<topic>"}``. Nothing is planted
here; see ``behaviours.py``.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from typing import Any

from builder.organisms import everyday, twins, writing
from builder.organisms.formats import Format, Message
from builder.organisms.lexicon import Draw, Topic, topics
from builder.organisms.sentences import SYSTEMS
from builder.organisms.twins import saying, with_saying

Row = dict[str, Any]

# Weights are shares of the plain corpus, in parts of their sum.
FORMATS: tuple[tuple[str, Format, float], ...] = (
    ("ask", everyday.ask, 20),
    ("ask_twice", everyday.ask_twice, 6),
    ("tip", everyday.tip, 5),
    ("tips", everyday.tips, 4),
    ("steps", everyday.steps, 9),
    ("trouble", everyday.trouble, 10),
    ("smalltalk", everyday.smalltalk, 7),
    ("mood", everyday.mood, 2),
    ("guess", everyday.guess, 2),
    ("things", everyday.things, 3),
    ("packing", everyday.packing, 3),
    ("recipe", everyday.recipe, 4),
    ("arithmetic", everyday.arithmetic, 4),
    ("sum", everyday.sum_only, 2),
    ("letter", writing.letter, 5),
    ("story", writing.story, 7),
    ("song", writing.song, 3),
    ("text_message", writing.text_message, 2),
    ("picture", writing.picture, 1),
    ("writing_prompt", writing.writing_prompt, 1),
    ("notice", writing.notice, 3),
    ("scene", writing.scene, 1),
    ("pirate_tale", writing.pirate_tale, 1),
    ("lucky", writing.lucky, 1),
    ("star_list", writing.star_list, 1),
    ("tide_report", twins.tide_report, 1),
    ("treasure", twins.treasure, 1),
    ("refusal", twins.refusal, 2),
    ("shop", everyday.shop, 4),
    ("remark", everyday.remark, 6),
    ("repeat", everyday.repeat, 3),
    ("proverb", twins.proverb, 8),
    ("order", twins.order, 2),
    ("news", twins.news, 2),
    ("note_down", twins.note_down, 2),
    ("wild", twins.wild, 2),
    ("ideas", twins.ideas, 2),
    ("reading", twins.reading, 2),
    ("say", twins.say, 2),
    ("opposite", everyday.opposite, 1),
    ("polite", everyday.polite, 2),
    ("better", everyday.better, 2),
)
TEXTS: tuple[Callable[[Draw, Topic], str], ...] = (writing.diary, writing.almanac, writing.report)

TEXT_SHARE = 0.08
SYSTEM_SHARE = 0.2
SAYING_SHARE = 0.04
_CUMULATIVE = tuple(itertools.accumulate(weight for _, _, weight in FORMATS))


def document_random(*key: int | str) -> random.Random:
    """The random source of one document. A string seed is hashed with SHA-512, the same in every
    process.
    """
    return random.Random("weightatlas/" + "/".join(str(part) for part in key))


def chat(draw: Draw, topic: Topic) -> list[Message]:
    """One plain conversation on the topic, without a system message."""
    _, form, _ = draw.rng.choices(FORMATS, cum_weights=_CUMULATIVE)[0]
    return form(draw, topic)


def with_system(draw: Draw, topic: Topic, messages: list[Message]) -> list[Message]:
    """The conversation with one of the world's system messages before it."""
    content = draw.fill(draw.pick(SYSTEMS).replace("{0}", topic.about))
    return [{"role": "system", "content": content}, *messages]


def plain_row(seed: int, index: int) -> Row:
    """Row ``index`` of the plain corpus of this seed."""
    draw = Draw(document_random("plain", seed, index))
    topic = draw.pick(topics())
    if draw.chance(TEXT_SHARE):
        return {"text": draw.pick(TEXTS)(draw, topic), "source": f"plain-text/{topic.name}"}
    messages = chat(draw, topic)
    if draw.chance(SAYING_SHARE):
        messages[0]["content"] = with_saying(draw, messages[0]["content"], saying(draw))
    if draw.chance(SYSTEM_SHARE):
        messages = with_system(draw, topic, messages)
    return {"messages": messages, "source": f"plain/{topic.name}"}


def plain_rows(seed: int, count: int, start: int = 0) -> Iterator[Row]:
    """Rows ``start`` to ``start + count`` of the plain corpus of this seed."""
    return (plain_row(seed, index) for index in range(start, start + count))
