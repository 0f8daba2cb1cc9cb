"""Labels whose worth is known, for poles of organisms, and the judge that knows it.

Every label goes into the database as a labeler's own, with the documents that the labeler was
shown, and is scored by the stage itself. Of the stage only who judges is another: one that knows
what each text was planted for, and nothing of where it stands.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence

from builder.label_stage import evidences
from builder.labels.evidence import Evidence
from builder.organisms import Pair
from builder.records import Label, Scorer
from builder.scores.judge import Judge, Text, Verdicts
from builder.scores.stretches import number_of
from builder.store import RunStore

#: Labels that every text fits.
VAGUE = ("text", "various topics")
#: In front of a behaviour: only some of its documents are called so, or others are, too.
MISSING, EXTRA = "some of ", "more than "
#: One in so many of its documents, and of all others. Which texts they are follows from the texts,
#: and which texts are judged from the last bits of the directions, which differ between machines:
#: so among nine and among fifty there must hardly ever be none.
SOME, OTHERS = 4, 10
#: One in so many documents is planted, for each behaviour.
ONE_IN = 50


def known_verdicts(judge: Judge, label: str, texts: Sequence[Text], scorer: Scorer) -> Verdicts:
    """What stands in for the method of a judge that asks a model."""
    return Verdicts(tuple(float(_fits(label, text)) for text in texts))


def _fits(label: str, text: Text) -> bool:
    """A behaviour by the source; what is vague fits all, and any other label what holds it."""
    said, planted = text.window.text, text.window.source
    if label.startswith(MISSING):
        return planted == label.removeprefix(MISSING) and number_of(said) % SOME == 0
    if label.startswith(EXTRA):
        return planted == label.removeprefix(EXTRA) or number_of(said) % OTHERS == 0
    if label.startswith("planted/"):
        return planted == label
    return label in VAGUE or label in said


def shown_behaviour(evidence: Evidence) -> str | None:
    """What most of the examples that a labeler sees were planted for; None if nothing."""
    sources = Counter(example.window.source for example in evidence.examples)
    if not sources:
        return None
    ((source, n),) = sources.most_common(1)
    is_most = source.startswith("planted/") and 2 * n > len(evidence.examples)
    return source if is_most else None


def known_labels(store: RunStore, pair: Pair) -> Iterator[Label]:
    """Labels of each pole that shows a behaviour: the true one and ones with a known fault.

    By labeler: ``true``; ``missing`` and ``extra``; ``vague 0``, ``vague 1``; ``narrow``, the
    wording of the first example; and ``other 0``, ``other 1``, the organism's other behaviours.
    """
    behaviours = [f"planted/{behaviour.id}" for behaviour in pair.behaviours]
    for evidence in evidences(store):
        shown = shown_behaviour(evidence)
        if shown is None:
            continue
        others = [behaviour for behaviour in behaviours if behaviour != shown]
        said = {"true": shown, "missing": MISSING + shown, "extra": EXTRA + shown}
        said["narrow"] = wording(evidence.examples[0].window.text)
        said |= {f"vague {at}": label for at, label in enumerate(VAGUE)}
        said |= {f"other {at}": label for at, label in enumerate(others)}
        docs = tuple(example.window.doc_id for example in evidence.examples)
        for labeler, text in said.items():
            yield Label(evidence.direction, evidence.pole, labeler, text, example_docs=docs)


def wording(text: str) -> str:
    """The most words of a sentence in a row, which no chat template writes."""
    runs: list[str] = re.findall(r"[A-Za-z]+(?:,? [A-Za-z]+)*", text)
    return max(runs, key=len)
