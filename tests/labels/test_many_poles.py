"""A thousand poles, sixteen requests at once, every fifth reply faulty, killed half-way."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import threading
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from builder.labels.prompts import render_prompt
from builder.records import Label
from tests.labels.endpoint import GOOD, Response, completion, error, serving
from tests.labels.making import background_of
from tests.labels.many_poles import IN_FLIGHT, PRICE, keys, label, poles

#: Seconds that a request may take; slow ones take for ever.
TIMEOUT = 2.0
ROOT = Path(__file__).parent.parent.parent

#: What may be wrong with a reply that reports this usage, and whether the server counts it: not at
#: all, as reported, or in a way that its client cannot know.
FAULTS: dict[str, tuple[Callable[[Any], Response], str]] = {
    "429": (lambda usage: error(429, "slow down", **{"retry-after-ms": "20"}), "free"),
    "500": (lambda usage: error(500, "oops"), "free"),
    "reset": (lambda usage: replace(completion(), reset=True), "in doubt"),
    "cut": (lambda usage: replace(completion(usage=usage), cut=True), "in doubt"),
    "drip": (lambda usage: replace(completion(usage=usage), drip=0.5), "in doubt"),
    "half": (lambda usage: Response(completion(usage=usage).body[:90]), "in doubt"),
    "html": (lambda usage: Response("<html>Please log in</html>"), "in doubt"),
    "usage": (
        lambda usage: completion(usage={"prompt_tokens": -1, "completion_tokens": "9"}),
        "in doubt",
    ),
    "two": (lambda usage: completion(choices=2, usage=usage), "metered"),
    "schema": (
        lambda usage: completion(json.dumps(GOOD | {"kind": "poem"}), usage=usage),
        "metered",
    ),
    "twice": (lambda usage: completion(json.dumps(GOOD) * 2, usage=usage), "metered"),
    "refusal": (lambda usage: completion("", refusal="I will not.", usage=usage), "metered"),
    "filter": (
        lambda usage: completion("", finish_reason="content_filter", usage=usage),
        "metered",
    ),
    "length": (
        lambda usage: completion('{"label": "half of', finish_reason="length", usage=usage),
        "metered",
    ),
}
#: Faults that another attempt undoes, and what the others end as.
PASSING = {"429", "500", "reset", "cut", "drip", "usage"}
REASONS = {
    "half": "malformed",
    "html": "malformed",
    "two": "malformed",
    "twice": "malformed",
    "schema": "schema",
    "refusal": "refusal",
    "filter": "content_filter",
    "length": "truncated",
}


def _good(usage: Any) -> Response:
    return completion(usage=usage)


class Script:
    """A server's answers: what a pole gets is drawn once; each passing fault comes up to twice."""

    def __init__(self, n: int, *, pause_at: int = -1) -> None:
        rng = random.Random(5)
        names = list(FAULTS)
        self.faults = [
            names[rng.randrange(len(names))] if rng.random() < 0.2 else "" for _ in range(n)
        ]
        self.seen: Counter[int] = Counter()
        self.metered: dict[int, Counter[tuple[int, int]]] = defaultdict(Counter)
        self.in_doubt = 0
        self.reached = threading.Event()
        self._pause_at = pause_at

    def __call__(self, number: int, body: dict[str, Any]) -> Response:
        found = re.search(r"pole(\d+)x", body["messages"][1]["content"])
        assert found
        pole = int(found[1])
        self.seen[pole] += 1
        fault = self.faults[pole]
        if fault in PASSING and self.seen[pole] > 1 + pole % 2:
            fault = ""
        make, counted = FAULTS[fault] if fault else (_good, "metered")
        # Every reply has a count of its own, so that no two can be mixed up.
        prompt, completed = 100 + pole, 20 + self.seen[pole]
        response = make({"prompt_tokens": prompt, "completion_tokens": completed})
        if counted == "metered":
            self.metered[pole][prompt, completed] += 1
        self.in_doubt += counted == "in doubt"
        if number == self._pause_at:
            self.reached.set()
        return response

    def expected(self) -> Counter[str]:
        """How the poles must end."""
        return Counter(REASONS.get(fault, "label") for fault in self.faults)


def spent(folder: Path, url: str, n: int) -> tuple[dict[int, Counter[tuple[int, int]]], int]:
    """Tokens (prompt, reply) of the metered requests for each pole; requests in doubt.

    Checks that each costs what its tokens do.
    """
    connection = sqlite3.connect(folder / "replies.sqlite")
    try:
        rows = connection.execute(
            "SELECT key, prompt_tokens, completion_tokens, unmetered, cost FROM requests"
        ).fetchall()
    finally:
        connection.close()
    numbers = keys(url, n)
    metered: dict[int, Counter[tuple[int, int]]] = defaultdict(Counter)
    doubt = 0
    for key, prompt, completed, unmetered, cost in rows:
        assert cost == pytest.approx(PRICE.of(prompt, completed))
        doubt += unmetered
        if not unmetered:
            metered[numbers[key]][prompt, completed] += 1
    return metered, doubt


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_BASE_URL", "OPENAI_API_KEY", "HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def test_the_faults_are_a_fifth_of_the_replies_and_of_every_kind() -> None:
    faults = Counter(Script(1000).faults)

    assert set(faults) == {"", *FAULTS}
    assert 750 <= faults[""] <= 850
    assert PASSING | set(REASONS) == set(FAULTS)


def test_every_pole_ends_as_it_must_and_the_spend_is_the_servers_own_count(
    tmp_path: Path,
) -> None:
    script = Script(150)
    with serving(script) as endpoint:
        results = list(label(tmp_path, endpoint.url, 150, TIMEOUT))

    assert sorted(result.direction for result in results) == sorted(f"d{i}" for i in range(150))
    found = Counter("label" if isinstance(result, Label) else result.reason for result in results)
    assert found == script.expected()
    metered, doubt = spent(tmp_path, endpoint.url, 150)
    assert metered == script.metered
    assert doubt == script.in_doubt


@pytest.mark.slow
def test_a_thousand_poles_killed_half_way_lose_no_reply_and_pay_for_none_twice(
    tmp_path: Path,
) -> None:
    n = 1000
    script = Script(n, pause_at=600)
    command = [sys.executable, "-m", "tests.labels.many_poles", str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with serving(script) as endpoint:
        command += [endpoint.url, str(n), str(TIMEOUT)]
        child = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
        try:
            assert script.reached.wait(120)
        finally:
            child.send_signal(signal.SIGKILL)
            child.wait(30)
        before = Counter(script.seen)
        stored = _kept(tmp_path)
        result = subprocess.run(
            command, cwd=ROOT, env=environment, check=True, capture_output=True, timeout=300
        )

    assert 500 <= len(before) < n
    assert Counter(json.loads(result.stdout)) == script.expected()
    assert sum(script.expected().values()) == n
    # Nothing whose reply was kept is asked again; of the others only what was on its way.
    again = {pole for pole in before if script.seen[pole] > before[pole]}
    assert not again & stored
    not_kept = {pole for pole in before if script.faults[pole] in ("half", "html", "two")}
    assert len(again - not_kept) <= IN_FLIGHT
    metered, doubt = spent(tmp_path, endpoint.url, n)
    lost = {pole: counted - metered[pole] for pole, counted in script.metered.items()}
    assert not any(metered[pole] - script.metered[pole] for pole in metered)
    assert sum(item.total() for item in lost.values()) <= IN_FLIGHT
    # What was on its way is counted all the same, at its most.
    missing = sum(item.total() for item in lost.values()) + script.in_doubt
    assert 0 <= doubt - missing <= IN_FLIGHT


def _kept(folder: Path) -> set[int]:
    """The poles whose reply is kept, by the prompts that the driver makes."""
    background = background_of(documents=10, words=20)
    connection = sqlite3.connect(folder / "replies.sqlite")
    try:
        hashes = {row[0] for row in connection.execute("SELECT prompt_hash FROM replies")}
    finally:
        connection.close()
    prompts = (
        render_prompt(evidence, background, examples=10, contrast=2) for evidence in poles(1000)
    )
    return {number for number, prompt in enumerate(prompts) if prompt.hash in hashes}
