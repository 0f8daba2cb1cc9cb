"""What is there to score? The labels of each labeler, who judges them, and what that depends on.

Labels of keyword statistics are judged by counting words, all others by a language model where one
is named. Whether embeddings are asked for besides does not depend on who gave a label.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from builder import __version__
from builder.config import ScoreSettings, Settings
from builder.endpoint.messages import Asker
from builder.labels.evidence import Background
from builder.records import HAND, KEYWORDS, STRATA, Label, Pole, Score, Scorer, Stratum
from builder.run_folder import digest_of
from builder.scores.asking import judge_facts, model_judge
from builder.scores.embedding import Again as EmbedAgain
from builder.scores.embedding import Embedder, EmbeddingJudge, random_texts
from builder.scores.items import Pool
from builder.scores.judge import Judge
from builder.scores.model_judge import Again
from builder.scores.pools import pole_pools
from builder.scores.scoring import SCORES_VERSION, Plan
from builder.scores.words import JUDGE as WORDS
from builder.scores.words import WORDS_VERSION, WordJudge
from builder.store import RunStore

#: Reasons for which another attempt may find a verdict; all others are in replies that are kept.
MOMENTARY = frozenset({"timeout", "http", "budget"})
_ALL = 2**31


@dataclass(frozen=True, slots=True)
class Work:
    """The labels of one labeler, by direction and pole, and how they are judged.

    ``by_words``: no language model is asked. ``fingerprint`` is of all that the scores depend on.
    """

    labeler: str
    labels: tuple[Label, ...]
    plan: Plan
    by_words: bool
    fingerprint: str

    @property
    def asks(self) -> bool:
        """Whether a judge is asked over the network."""
        return not self.by_words or "embedding" in self.plan.judges


def works_of(
    store: RunStore,
    settings: Settings,
    asker: Asker | None,
    embedder: Embedder | None,
    again: Again | None = None,
    embed_again: EmbedAgain | None = None,
) -> tuple[list[Work], list[str]]:
    """What there is to do for each labeler, and the labelers with scores but without labels.

    ``asker`` and ``embedder`` are asked for verdicts, None where no model is named; ``again`` asks
    anew where a kept reply gave none, ``embed_again`` where kept vectors cannot be compared. A
    model's labels are left out where nobody can judge them.
    """
    labels = store.labels(candidates=True)
    background = Background.from_windows(store.reservoir())
    meta = store.meta()
    chat = model_judge(settings, asker, again) if asker is not None else None
    near = None
    if embedder is not None:
        length = int(meta["settings"]["scan"]["window"]) + 1
        # One for all labelers, since they are judged on the same random texts.
        near = EmbeddingJudge(embedder, random_texts(store.held_out(), length), embed_again)
    labelers = sorted({label.labeler for label in labels})
    works = []
    for labeler in labelers:
        own = tuple(label for label in labels if label.labeler == labeler)
        by_words = labeler == KEYWORDS or (labeler == HAND and chat is None)
        judge: Judge
        if by_words:
            judge = WordJudge(background, as_phrases=labeler == KEYWORDS)
        elif chat is not None:
            judge = chat
        else:
            continue
        judges: dict[Scorer, Judge] = dict.fromkeys(settings.score.scorers, judge)
        if near is not None:
            judges["embedding"] = near
        works.append(_work(settings, own, judges, by_words, str(meta["scan_fingerprint"])))
    scored = {score.labeler for score in store.scores(candidates=True)}
    return works, sorted(scored - set(labelers))


def _work(
    settings: Settings,
    labels: tuple[Label, ...],
    judges: dict[Scorer, Judge],
    by_words: bool,
    scanned: str,
) -> Work:
    score, limits = settings.score, _limits(settings.score)
    plan = Plan(
        judges=judges,
        most={
            scorer: dict.fromkeys(STRATA, _ALL) if by_words and scorer == "detection" else limits
            for scorer in score.scorers
        },
        parts=2 if any(label.candidate for label in labels) else 1,
    )
    rule = [WORDS, WORDS_VERSION] if by_words else []
    judged_by = [*rule, *judge_facts(settings, by_words=by_words)]
    facts = [scanned, __version__, SCORES_VERSION, judged_by]
    said = [
        [item.direction, item.pole, item.candidate, item.text, item.confidence, item.example_docs]
        for item in labels
    ]
    fingerprint = digest_of(facts, limits, score.scorers, said)
    return Work(labels[0].labeler, labels, plan, by_words, fingerprint)


def _limits(settings: ScoreSettings) -> dict[Stratum, int]:
    return {
        "pole": settings.positives,
        "other": settings.other,
        "middle": settings.random // 2,
        "random": settings.random - settings.random // 2,
    }


def is_due(store: RunStore, work: Work, retry_failed: bool) -> bool:
    """Whether scores are missing, out of date, or lack verdicts that another attempt may find."""
    if store.score_fingerprint(work.labeler) != work.fingerprint:
        return True
    own = [score for score in store.scores(candidates=True) if score.labeler == work.labeler]
    # A labeler that was asked again chooses as if nothing had been scored.
    chosen = {_candidate(x) for x in work.labels if x.is_chosen and x.text is not None}
    if chosen != {_candidate(score) for score in own if score.split == "test"}:
        return True
    if retry_failed:
        return any(score.unparsed for score in own)
    return any(MOMENTARY & score.faults.keys() for score in own)


def _candidate(item: Label | Score) -> tuple[str, Pole, int]:
    return item.direction, item.pole, item.candidate


def poles_of(store: RunStore, work: Work) -> Iterator[tuple[tuple[Label, ...], Pool]]:
    """The candidates of each pole, with the texts to judge them on."""
    of_poles: dict[tuple[str, Pole], list[Label]] = {}
    for label in work.labels:
        of_poles.setdefault((label.direction, label.pole), []).append(label)
    directions = dict.fromkeys(direction for direction, _ in of_poles)
    for pool in pole_pools(store, directions):
        if candidates := of_poles.get((pool.direction, pool.pole)):
            yield tuple(candidates), pool
