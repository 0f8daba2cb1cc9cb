"""Labels many made-up poles through an endpoint and prints how they ended; made to be killed.

Arguments: folder of the replies, address of the endpoint, number of poles, seconds per request.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from builder.config import LabelSettings
from builder.endpoint.access import Access
from builder.endpoint.budget import Budget
from builder.endpoint.client import ChatClient
from builder.endpoint.prices import Price
from builder.endpoint.replies import Replies, key_of
from builder.labels.evidence import Evidence
from builder.labels.explain import Result, label_poles, questions
from builder.records import Label
from tests.labels.making import background_of, evidence_of, insert

IN_FLIGHT = 16
#: A prompt token costs a dollar, one of a reply a thousand.
PRICE = Price(1e6, 1e9)


def poles(n: int) -> Iterator[Evidence]:
    """Small evidence of ``n`` poles; each prompt names its pole."""
    one = evidence_of(lambda rng, text: insert(rng, text, "lighthouse"), n=2, words=20)
    for number in range(n):
        yield replace(one, direction=f"d{number}", promoted=(f"pole{number}x",))


def settings_of(url: str, timeout: float) -> LabelSettings:
    """How the poles are asked about."""
    return LabelSettings(
        labeler="openai",
        model="scripted",
        base_url=url,
        timeout=timeout,
        concurrency=IN_FLIGHT,
        contrast=2,
    )


def keys(url: str, n: int) -> dict[str, int]:
    """The number of each pole by the key that its requests are kept under."""
    settings = settings_of(url, 1.0)
    background = background_of(documents=10, words=20)
    asked = questions(poles(n), background, settings)
    return {key_of(item, Access.of(settings)): number for number, item in enumerate(asked)}


def label(folder: Path, url: str, n: int, timeout: float) -> Iterator[Result]:
    """The results for all poles, as they come."""
    settings = settings_of(url, timeout)
    background = background_of(documents=10, words=20)
    with Replies(folder / "replies.sqlite") as replies:
        budget = Budget(spent=replies.spent(PRICE))
        with ChatClient(
            Access.of(settings), replies, stage="labels", price=PRICE, budget=budget
        ) as client:
            for results in label_poles(poles(n), background, settings, client):
                yield from results


def main() -> None:
    folder, url, n, timeout = sys.argv[1:]
    counts = Counter(
        "label" if isinstance(result, Label) else result.reason
        for result in label(Path(folder), url, int(n), float(timeout))
    )
    sys.stdout.write(json.dumps(counts))


if __name__ == "__main__":
    main()
