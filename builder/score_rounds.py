"""How are verdicts asked for in batches? In two rounds, since only what is chosen is tested.

The first asks about the texts that decide between candidates, and of poles with a single label
about those that test it; the second tests the candidates that were chosen. Batches that an earlier
call handed over are collected before either, whichever round they are of: so what may be in them is
all that could be asked about any candidate. Embeddings are asked for one by one, and not here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from builder.endpoint.access import Access
from builder.endpoint.batch import BatchJob, answer_batch, collect_batches, wait_for_batches
from builder.endpoint.messages import Fault, Question
from builder.endpoint.replies import Replies
from builder.records import Label, Pole
from builder.score_works import Work, poles_of
from builder.scores.scoring import deciding_questions, select_candidate, testing_questions
from builder.store import RunStore


@dataclass(frozen=True, slots=True)
class Rounds:
    """What is asked of the language model about the labels of ``works``, round by round.

    Whoever judges in the plans of the works answers from kept replies alone.
    """

    store: RunStore
    works: Sequence[Work]
    _chosen: dict[tuple[str, str, Pole], Label | None] = field(default_factory=dict)

    def possible(self) -> Iterator[Question]:
        """All that may be on its way: every candidate's questions of both rounds."""
        for work in self.works:
            for candidates, pool in poles_of(self.store, work):
                yield from deciding_questions(candidates, pool, work.plan)
                for label in candidates:
                    yield from testing_questions(label, pool, work.plan)

    def first(self) -> Iterator[Question]:
        """What is asked before candidates are chosen."""
        for work in self.works:
            for candidates, pool in poles_of(self.store, work):
                if len(candidates) > 1:
                    yield from deciding_questions(candidates, pool, work.plan)
                else:
                    yield from testing_questions(candidates[0], pool, work.plan)

    def second(self) -> Iterator[Question]:
        """What is asked about the candidates that the first round chose."""
        for work in self.works:
            for candidates, pool in poles_of(self.store, work):
                if len(candidates) < 2:
                    continue
                pole = work.labeler, pool.direction, pool.pole
                if pole not in self._chosen:
                    labels = select_candidate(candidates, pool, work.plan).labels
                    self._chosen[pole] = next((each for each in labels if each.is_chosen), None)
                if label := self._chosen[pole]:
                    yield from testing_questions(label, pool, work.plan)


def ask_in_batches(
    rounds: Rounds, access: Access, replies: Replies, job: BatchJob, faults: dict[str, Fault]
) -> None:
    """Has both rounds answered through the batch endpoint; all replies are then kept.

    ``faults`` takes up, by key, why a question has none, each round before the next one begins.
    Waits for batches, which may take a day for each round. Raises LabelerError and ConfigError as
    :func:`builder.endpoint.batch.answer_batch` does.
    """
    wait_for_batches(rounds.possible, access, replies, job)
    for questions in (rounds.first, rounds.second):
        faults.update(answer_batch(questions, access, replies, job))


def collect_rounds(rounds: Rounds, access: Access, replies: Replies, job: BatchJob) -> None:
    """Keeps the replies of batches that have ended; raises LabelerError where one has not."""
    collect_batches(rounds.possible, access, replies, job)
