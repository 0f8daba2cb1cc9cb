from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from builder.config import LabelSettings
from builder.endpoint import prices
from builder.endpoint.estimate import Estimate, estimate_questions
from builder.endpoint.messages import Reply
from builder.endpoint.prices import Price, find_price
from builder.errors import ConfigError
from tests.endpoint.asking import question


def settings_of(**changes: Any) -> LabelSettings:
    return LabelSettings.model_validate({"labeler": "openai", "model": "gpt-4.1-mini"} | changes)


def test_settings_come_before_the_table_here_and_that_before_the_shipped_one(
    tmp_path: Path,
) -> None:
    shipped = find_price(settings_of(), tmp_path)
    (tmp_path / "prices.toml").write_text('[models."gpt-4.1-mini"]\ninput = 7\noutput = 8.5\n')
    own = find_price(settings_of(), tmp_path)
    given = find_price(settings_of(price_input=0, price_output=1), tmp_path)

    assert shipped is not None
    assert own is not None
    assert given is not None
    assert shipped.source.startswith("prices.toml as of 20")
    assert (own.input, own.output, own.batch) == (7.0, 8.5, 1.0)
    assert (given.input, given.output) == (0.0, 1.0)
    assert shipped.batched().of(1_000_000, 0) == shipped.of(1_000_000, 0) / 2


def test_a_dated_version_has_the_price_of_its_model(tmp_path: Path) -> None:
    dated = find_price(settings_of(model="gpt-4.1-mini-2025-04-14"), tmp_path)

    assert dated == find_price(settings_of(), tmp_path)


@pytest.mark.parametrize(
    ("model", "base_url", "is_known"),
    [
        ("gpt-4.1-mini", "", True),
        ("gpt-4.1-mini", "https://api.openai.com/v1", True),
        ("gpt-4.1-mini", "https://example.org/v1", False),
        ("gpt-4.1-mini", "http://localhost:8000/v1", False),
        ("my-model", "", False),
    ],
)
def test_the_shipped_prices_are_those_of_one_endpoint(
    model: str, base_url: str, is_known: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    price = find_price(settings_of(model=model, base_url=base_url), tmp_path)

    assert (price is not None) == is_known


def test_half_a_price_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="needs both"):
        find_price(settings_of(price_input=1.0), tmp_path)


@pytest.mark.parametrize(
    "text", ["", "[models]\nm = 3", "nonsense", "[models.m]\ninput = -1\noutput = 2", "\xff"]
)
def test_a_table_that_is_none_is_refused_with_the_form(text: str, tmp_path: Path) -> None:
    (tmp_path / "prices.toml").write_bytes(text.encode("latin-1"))

    with pytest.raises(ConfigError, match="no table of prices"):
        find_price(settings_of(), tmp_path)


def test_the_shipped_table_says_when_it_was_right() -> None:
    table = tomllib.loads(
        Path(prices.__file__).with_name("prices.toml").read_text(encoding="utf-8")
    )

    assert table["as_of"]
    assert len(table["models"]) >= 5


def test_an_estimate_counts_what_is_not_kept_and_estimates_add_up() -> None:
    asked = [question(number) for number in range(3)]
    kept = {asked[1].hash: Reply("x", "stop")}

    found = estimate_questions(asked, lambda item: kept.get(item.hash), Price(1e6, 0))
    unknown = estimate_questions(asked, lambda item: None, None)

    tokens = -(-(len(asked[0].system) + len(asked[0].user)) // 3)
    assert found == Estimate(3, 1, 2 * tokens, 800, 2.0 * tokens)
    assert found.to_ask == 2
    assert found + Estimate() == found
    assert (found + unknown).requests == 6
    assert (found + unknown).cost is None


def test_a_prompt_in_a_script_of_long_characters_is_not_taken_for_a_short_one() -> None:
    (chinese,) = (question(user="灯塔在岬角上发光" * 100),)

    found = estimate_questions([chinese], lambda item: None, None)

    # A character is about a token there.
    assert 800 <= found.prompt_tokens <= 820


def test_what_is_on_its_way_in_a_batch_is_not_to_be_asked() -> None:
    found = estimate_questions([question()], lambda item: None, Price(1, 1), lambda item: True)

    assert (found.requests, found.in_batch, found.to_ask, found.cost) == (1, 1, 0, 0.0)
    assert (found + found).in_batch == 2
