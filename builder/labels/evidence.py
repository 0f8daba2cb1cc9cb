"""What is a label made from? The examples of one pole, those of the other, and random texts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Set
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


class _Fewer(Mapping[str, int]):
    """Counts less some others, of which there are few; the counts are not copied."""

    def __init__(self, counts: Mapping[str, int], less: Mapping[str, int]) -> None:
        self._counts, self._less = counts, less

    def __getitem__(self, term: str) -> int:
        return self._counts[term] - self._less.get(term, 0)

    def __iter__(self) -> Iterator[str]:
        return iter(self._counts)

    def __len__(self) -> int:
        return len(self._counts)


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

    def without(self, documents: Set[int]) -> Background:
        """The background that is left without these documents, such as those that labels are tested
        on; half a millisecond for each that is in it.
        """
        left_out = [window for window in self.windows if window.doc_id in documents]
        if not left_out:
            return self
        holding = Counter(term for window in left_out for term in document_terms(window.text))
        occurring = Counter(unit.term for window in left_out for unit in units(window.text))
        n_documents = self.n_documents - len(left_out)
        n_units = self.n_units - occurring.total()
        return Background(
            windows=tuple(window for window in self.windows if window.doc_id not in documents),
            documents=_Fewer(self.documents, holding),
            occurrences=_Fewer(self.occurrences, occurring),
            n_units=n_units,
            mean_units=n_units / n_documents if n_documents else 0.0,
            recurring=self.recurring
            - sum(self.documents[t] >= 4 > self.documents[t] - n for t, n in holding.items()),
        )

    @property
    def n_documents(self) -> int:
        """Number of distinct random texts."""
        return len(self.windows)
