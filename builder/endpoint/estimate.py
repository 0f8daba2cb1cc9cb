"""What would a stage ask, and what would that cost? Counted without asking."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from builder.endpoint.bodies import expected_prompt_tokens
from builder.endpoint.messages import Question, Reply
from builder.endpoint.prices import Price


@dataclass(frozen=True, slots=True)
class Estimate:
    """Requests that a stage needs, and those among them whose reply is ``kept`` or ``in_batch``,
    on its way in a batch.

    ``prompt_tokens`` is for those to ask, about, at three bytes a token; ``completion_tokens`` is
    the most the replies to them can have. ``cost`` is for both, in US dollars, so about as well;
    None where no price is known. Estimates add up.
    """

    requests: int = 0
    kept: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float | None = 0.0
    in_batch: int = 0

    @property
    def to_ask(self) -> int:
        """Requests that would be sent."""
        return self.requests - self.kept - self.in_batch

    def __add__(self, other: Estimate) -> Estimate:
        unknown = self.cost is None or other.cost is None
        return Estimate(
            self.requests + other.requests,
            self.kept + other.kept,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            None if unknown else (self.cost or 0.0) + (other.cost or 0.0),
            self.in_batch + other.in_batch,
        )


def estimate_questions(
    questions: Iterable[Question],
    kept: Callable[[Question], Reply | None],
    price: Price | None,
    in_batch: Callable[[Question], bool] = lambda question: False,
) -> Estimate:
    """The estimate of these questions; one whose reply is kept or on its way costs nothing."""
    total = Estimate()
    for question in questions:
        if kept(question) is not None:
            total += Estimate(requests=1, kept=1)
        elif in_batch(question):
            total += Estimate(requests=1, in_batch=1)
        else:
            prompt = expected_prompt_tokens(question)
            completion = question.max_completion_tokens
            total += Estimate(1, 0, prompt, completion, _cost(price, prompt, completion))
    return total


def answered(questions: Iterable[Question]) -> Estimate:
    """The estimate of questions that are not asked, since what they are for is had."""
    n = sum(1 for _ in questions)
    return Estimate(requests=n, kept=n)


def _cost(price: Price | None, prompt: int, completion: int) -> float | None:
    return price.of(prompt, completion) if price else None
