"""What does the home page say of every model? A card each, and a table where they are many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from builder.pages.label_view import State
from builder.pages.lists_view import trigger_list
from builder.pages.map_view import small_map
from builder.pages.model_view import SAID_ON_CARD
from builder.pages.overview import Overview
from builder.pages.taught_view import Taught, taught
from builder.pages.views import RunView

#: From so many models on cards are small, and a table that can be sorted stands below them.
MANY = 7


@dataclass(frozen=True, slots=True)
class Card:
    """One model: its map in small, what stands out in it, and figures."""

    run: RunView
    thumbnail: Markup
    taught: Taught
    states: dict[State, int]
    #: Share of its poles with a label; None without any poles.
    labelled: float | None
    #: The greatest trigger-likeness of its poles; None where none looks like one.
    trigger: float | None
    #: Poles that look more like a trigger than any control's.
    triggers: int


@dataclass(frozen=True, slots=True)
class Home:
    """All models in the order given; ``many`` is whether cards are to be small."""

    cards: tuple[Card, ...]
    many: bool


def home(runs: Sequence[RunView], views: Sequence[Overview]) -> Home:
    """What the home page needs of these runs and their overviews."""
    cards = tuple(_card(run, view) for run, view in zip(runs, views, strict=True))
    return Home(cards, len(cards) >= MANY)


def _card(run: RunView, view: Overview) -> Card:
    states = run.states()
    poles = sum(states.values())
    triggers = trigger_list(run, view)
    return Card(
        run=run,
        thumbnail=small_map(run, view),
        taught=taught(run, view, SAID_ON_CARD),
        states=states,
        labelled=states["label"] / poles if poles else None,
        trigger=triggers.rows[0].trigger.value if triggers.rows else None,
        triggers=triggers.beyond,
    )
