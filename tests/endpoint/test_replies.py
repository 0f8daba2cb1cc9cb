from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from builder.endpoint.access import Access
from builder.endpoint.messages import Question, Reply
from builder.endpoint.prices import Price
from builder.endpoint.replies import Replies, Usage, key_of
from builder.errors import DiskFullError, StoreError
from tests.endpoint.asking import question

ACCESS = Access("m", "http://127.0.0.1:1/v1")


def keep(replies: Replies, asked: Question, reply: Reply, price: Price | None = None) -> Reply:
    number = replies.begin(key_of(asked, ACCESS), "labels", ACCESS, Usage(9, 9), price)
    return replies.keep(number, asked, ACCESS, reply, price)


def test_a_reply_is_found_by_another_process_and_by_nothing_but_its_question(
    tmp_path: Path,
) -> None:
    with Replies(tmp_path / "r.sqlite") as replies:
        keep(replies, question(1), Reply("an \ud800 answer\n\x00", "stop", "", 5, 7))
        # While the first still has it open.
        with Replies(tmp_path / "r.sqlite") as other:
            found = other.find(key_of(question(1), ACCESS))
            nothing = other.find(key_of(question(2), ACCESS))

    assert found is not None
    assert found.content == "an \\ud800 answer\n\x00"
    assert (found.prompt_tokens, found.completion_tokens, found.cached) == (5, 7, True)
    assert nothing is None


def test_what_had_no_price_is_counted_at_the_one_known_now(tmp_path: Path) -> None:
    with Replies(tmp_path / "r.sqlite") as replies:
        keep(replies, question(1), Reply("x", "stop", "", 1_000_000, 0))
        keep(replies, question(2), Reply("x", "stop", "", 1_000_000, 0), Price(3.0, 1.0))
        (spend,) = replies.spend("labels")

        assert spend.cost is None
        assert replies.spent(Price(2.0, 1.0)) == 5.0
        assert replies.spent(None) == 3.0


def test_what_had_no_price_is_counted_at_that_of_its_own_model_or_else_at_the_dearest(
    tmp_path: Path,
) -> None:
    cheap, dear = Price(0.1, 0.0), Price(7.0, 0.0)
    with Replies(tmp_path / "r.sqlite") as replies:
        for number in range(2):
            keep(replies, question(number), Reply("x", "stop", "", 1_000_000, 0))
        model = ACCESS.public_model

        assert replies.spent(cheap, {model: dear}) == 14.0
        assert replies.spent(dear, {model: cheap}) == pytest.approx(0.2)
        assert replies.spent(cheap, {"another": dear}) == 14.0
        assert replies.spent(None) == 0.0


def test_a_request_that_is_begun_counts_at_its_most_until_it_is_settled_or_dropped(
    tmp_path: Path,
) -> None:
    price = Price(1e6, 1e6)
    with Replies(tmp_path / "r.sqlite") as replies:
        numbers = [replies.begin("k", "labels", ACCESS, Usage(10, 5), price) for _ in range(3)]
        assert replies.spent(None) == 45.0
        replies.settle(numbers[0], Usage(2, 1), price)
        replies.drop(numbers[1])
    with Replies(tmp_path / "r.sqlite") as replies:
        (spend,) = replies.spend("labels")

    assert (spend.requests, spend.unmetered, spend.cost) == (2, 1, 18.0)


@pytest.mark.parametrize(
    "damage", [b"this is no database" * 50, b"SQLite format 3\x00" + b"x" * 500]
)
def test_a_damaged_file_is_said_to_be_damaged(damage: bytes, tmp_path: Path) -> None:
    (tmp_path / "r.sqlite").write_bytes(damage)

    with pytest.raises(StoreError, match="damaged: delete it to ask"):
        Replies(tmp_path / "r.sqlite")


def test_a_file_of_another_version_is_refused(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "r.sqlite")
    connection.execute("PRAGMA user_version = 99")
    connection.close()

    with pytest.raises(StoreError, match="another version"):
        Replies(tmp_path / "r.sqlite")


def test_a_full_disk_is_said_to_be_full_and_replies_so_far_stay(tmp_path: Path) -> None:
    with Replies(tmp_path / "r.sqlite") as replies:
        keep(replies, question(1), Reply("x", "stop"))
        pages = replies._connection.execute("PRAGMA page_count").fetchone()[0]
        replies._connection.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(DiskFullError, match="no space left for replies"):
            keep(replies, question(2), Reply("x" * 100_000, "stop"))
        assert replies.find(key_of(question(1), ACCESS)) is not None
        assert replies.find(key_of(question(2), ACCESS)) is None
