"""Who is asked for verdicts, at which endpoint, within which budget? The clients of a run's judges.

A language model and a model for embeddings may be asked in the same stage. They share the kept
replies, the budget and the sum of what was spent. Neither is asked for anything that is kept.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builder.config import LabelSettings, Settings
from builder.endpoint.access import Access
from builder.endpoint.budget import Budget
from builder.endpoint.client import ChatClient
from builder.endpoint.embeddings import EmbeddingClient, embedding_settings
from builder.endpoint.messages import Asker, Fault
from builder.endpoint.prices import Price, check_budget, find_price
from builder.endpoint.replies import REPLIES, Replies
from builder.errors import ConfigError
from builder.records import Spend
from builder.scores.model_judge import Again, ModelJudge, prompt_version

#: What the requests of judges are counted for, and the name of their stage.
STAGE = "scores"


def judge_settings(settings: Settings) -> LabelSettings | None:
    """The endpoint of the model that judges: as for labels, unless ``score`` names another.

    None where no model is named at all. A price that is set for the labeler is no other model's.
    """
    own, score = settings.label, settings.score
    model = score.model or own.model
    if not model:
        return None
    changed: dict[str, Any] = {
        "labeler": "openai",
        "model": model,
        "base_url": score.base_url or own.base_url,
        "temperature": score.temperature,
    }
    if model != own.model:
        changed |= {"price_input": None, "price_output": None}
    return own.model_copy(update=changed)


def embedder_settings(settings: Settings) -> LabelSettings | None:
    """The endpoint of the model for embeddings; None where no scorer needs one."""
    return embedding_settings(settings.label) if "embedding" in settings.score.scorers else None


def known_prices(settings: Settings) -> dict[str, Price]:
    """The prices of all models that the settings name, by their public names, where known."""
    own = settings.label
    named = [own if own.labeler != "keywords" else None]
    named += [judge_settings(settings), embedding_settings(own)]
    prices: dict[str, Price] = {}
    for each in named:
        if each is not None and (price := find_price(each)):
            prices.setdefault(Access.of(each).public_model, price)
    return prices


def check_judges(settings: Settings) -> None:
    """Raises ConfigError for a scorer without a model, and for a budget that cannot be kept."""
    if "embedding" in settings.score.scorers and not settings.label.embedding_model:
        raise ConfigError(
            "score.scorers: 'embedding' needs a model; name it in label.embedding_model, for "
            "instance text-embedding-3-small, or leave 'embedding' out"
        )
    for asked in (judge_settings(settings), embedder_settings(settings)):
        if asked is not None:
            check_budget(asked)


def judge_facts(settings: Settings, *, by_words: bool) -> list[Any]:
    """What the verdicts of the models depend on, besides the labels and the texts."""
    score = settings.score
    facts: list[Any] = []
    judge, embedder = judge_settings(settings), embedder_settings(settings)
    if judge is not None and not by_words:
        prompts = [prompt_version(scorer) for scorer in score.scorers if scorer != "embedding"]
        facts += [judge.model, Access.of(judge).where, judge.temperature]
        facts += [prompts, score.batch, score.max_completion_tokens]
    if embedder is not None:
        facts += [[embedder.model, Access.of(embedder).where]]
    return facts


def model_judge(settings: Settings, asker: Asker, again: Again | None = None) -> ModelJudge:
    """The language model that judges, asked by ``asker``."""
    judge = judge_settings(settings)
    assert judge is not None
    return ModelJudge(
        Access.of(judge).public_model,
        asker,
        batch=settings.score.batch,
        max_completion_tokens=settings.score.max_completion_tokens,
        again=again,
    )


@dataclass(frozen=True, slots=True)
class Asking:
    """The models that may be asked, None where there is none, with all that they share."""

    replies: Replies
    budget: Budget
    chat: ChatClient | None
    embedder: EmbeddingClient | None
    prices: Mapping[str, Price]

    @property
    def is_priced(self) -> bool:
        """Whether it is known what any of it costs."""
        return any(client and client.price for client in (self.chat, self.embedder))

    def recount(self) -> None:
        """Takes up in the budget what was spent otherwise than by these clients."""
        self.budget.recount(self.replies.spent(None, self.prices))

    def stop(self) -> None:
        """Ends all waiting for servers."""
        for client in (self.chat, self.embedder):
            if client is not None:
                client.stop()

    def spend(self) -> list[Spend]:
        """What the stage has cost so far, by model."""
        return self.replies.spend(STAGE)


@contextlib.contextmanager
def asking(
    settings: Settings, folder: Path, *, offline: Mapping[str, Fault] | None = None
) -> Iterator[Asking | None]:
    """The models that the settings name, with the kept replies of a run folder; None without.

    ``offline``: the language model is asked nothing, see :class:`ChatClient`.
    """
    judge, embedder = judge_settings(settings), embedder_settings(settings)
    named = judge or embedder
    if named is None:
        yield None
        return
    with contextlib.ExitStack() as stack:
        replies = stack.enter_context(Replies(folder / REPLIES))
        prices = known_prices(settings)
        budget = Budget(named.budget, replies.spent(None, prices))
        chat, embeddings = None, None
        if judge is not None:
            chat = ChatClient(
                Access.of(judge),
                replies,
                stage=STAGE,
                price=find_price(judge),
                budget=budget,
                offline=offline,
            )
            stack.enter_context(chat)
        if embedder is not None:
            embeddings = EmbeddingClient(
                Access.of(embedder), replies, stage=STAGE, price=find_price(embedder), budget=budget
            )
            stack.enter_context(embeddings)
        yield Asking(replies, budget, chat, embeddings, prices)
