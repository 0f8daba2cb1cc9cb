"""What is a label made from? The examples of one pole, those of the other, and random texts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from builder.labels.terms import document_terms, units
from builder.records import Example, Pole, Window

#: Goes into every fingerprint of labels; raised when the pipeline gives other evidence.
EVIDENCE_VERSION = 4


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """What is known of one pole of one direction when it is labelled.

    ``examples``: of this pole, most extreme first, each document once (role "any"): the half that
    labelers may see (see ``split``), without documents that are held out for scores;
    ``contrast``: the same of the other pole; ``promoted``: tokens that the logit lens promotes
    for the max pole, or suppresses for the min pole, strongest first; ``middle``: documents of the
    reservoir that reach some way to the pole, with activations; ``sources``: (name, share of the
    pole's strongest documents, share of all documents), the commonest first;
    ``withheld``: documents that labels of the direction are tested on, and near-duplicates of them,
    which must not be shown.
    """

    direction: str
    pole: Pole
    examples: tuple[Example, ...]
    contrast: tuple[Example, ...] = ()
    promoted: tuple[str, ...] = ()
    middle: tuple[Example, ...] = ()
    sources: tuple[tuple[str, float, float], ...] = ()
    withheld: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True, eq=False)
class Background:
    """How common every term is in random documents; made once for all poles.

    ``windows`` are the distinct texts, in the order given. ``documents`` counts those that hold a
    term, ``occurrences`` how often a unit occurs in all of them, ``n_units`` all units,
    ``mean_units`` those of one text. ``recurring`` is the number of terms in four texts or more:
    about as many terms as could ever turn out to be over-represented.
    """

    windows: tuple[Window, ...]
    documents: Mapping[str, int]
    occurrences: Mapping[str, int]
    n_units: int
    mean_units: float
    recurring: int

    @classmethod
    def from_windows(cls, windows: Iterable[Window]) -> Background:
        """The background of a run's reservoir; about 2,000 texts a second."""
        distinct = tuple({window.text: window for window in reversed(tuple(windows))}.values())
        distinct = distinct[::-1]
        documents: Counter[str] = Counter()
        occurrences: Counter[str] = Counter()
        for window in distinct:
            documents.update(document_terms(window.text))
            occurrences.update(unit.term for unit in units(window.text))
        n_units = occurrences.total()
        return cls(
            windows=distinct,
            documents=MappingProxyType(documents),
            occurrences=MappingProxyType(occurrences),
            n_units=n_units,
            mean_units=n_units / len(distinct) if distinct else 0.0,
            recurring=sum(count >= 4 for count in documents.values()),
        )

    @property
    def n_documents(self) -> int:
        """Number of distinct random texts."""
        return len(self.windows)
