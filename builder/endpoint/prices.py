"""What does a token cost? From the settings, a table one can edit, or the one shipped.

In this order: ``label.price_input`` with ``label.price_output``; a ``prices.toml`` in the current
folder; the shipped table, which holds for the default endpoint alone. A model that none of them
names has no known price, and then none is made up.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from builder.config import LabelSettings
from builder.endpoint.access import Access
from builder.errors import ConfigError

TABLE = "prices.toml"
#: Hosted models are named with the day of their version as well.
_DATED = re.compile(r"-\d{4}-\d{2}-\d{2}$")

_Dollars = Annotated[float, Field(ge=0, allow_inf_nan=False)]


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars per million tokens; ``batch`` is the share that the batch endpoint asks for."""

    input: float
    output: float
    source: str = ""
    batch: float = 1.0

    def of(self, prompt_tokens: int, completion_tokens: int) -> float:
        """What so many tokens cost, in US dollars."""
        return (prompt_tokens * self.input + completion_tokens * self.output) / 1e6

    def batched(self) -> Price:
        """The price through the batch endpoint."""
        return Price(self.input * self.batch, self.output * self.batch, self.source)


class _Row(BaseModel):
    model_config = ConfigDict(extra="forbid")

    input: _Dollars
    output: _Dollars
    batch: Annotated[float, Field(gt=0, le=1)] = 1.0


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid")

    as_of: str = ""
    models: dict[str, _Row]


def find_price(settings: LabelSettings, folder: Path | None = None) -> Price | None:
    """The price of the model that the settings name; None where it is not known.

    ``folder`` is where a ``prices.toml`` is looked for, the current one by default. Raises
    ConfigError for a table that cannot be read, and for half a price.
    """
    given = (settings.price_input, settings.price_output)
    if settings.price_input is not None and settings.price_output is not None:
        return Price(settings.price_input, settings.price_output, "label.price_input")
    if given != (None, None):
        raise ConfigError(
            "label.price_input and label.price_output: a price needs both; set the other one too"
        )
    own = (folder or Path()) / TABLE
    if own.is_file() and (price := _price_in(own, settings.model)):
        return price
    if Access.of(settings).is_default:
        return _price_in(Path(__file__).with_name(TABLE), settings.model)
    return None


def price_of_requests(settings: LabelSettings, *, batch: bool) -> Price | None:
    """As :func:`find_price`, of requests that go one by one or through the endpoint's batches."""
    price = find_price(settings)
    return price.batched() if price and batch else price


def check_budget(settings: LabelSettings) -> None:
    """Raises ConfigError for a budget that cannot be kept, since no price is known."""
    is_priced = settings.labeler == "keywords" or find_price(settings) is not None
    if settings.budget is not None and not is_priced:
        raise ConfigError(
            f"label.budget: the price of {settings.model!r} is not known; name it in prices.toml "
            "or, if it is label.model, set label.price_input and label.price_output (US dollars "
            "per million tokens, 0 for a model of your own)"
        )


def _price_in(path: Path, model: str) -> Price | None:
    try:
        table = _Table.model_validate(tomllib.loads(path.read_text(encoding="utf-8-sig")))
    except (OSError, ValueError, RecursionError) as error:
        said = error.errors()[0] if isinstance(error, ValidationError) else error
        raise ConfigError(
            f"{path}: is no table of prices: {said}; the form is "
            '[models."gpt-4.1-mini"] input = 0.40 output = 1.60, in US dollars per million tokens'
        ) from error
    row = table.models.get(model) or table.models.get(_DATED.sub("", model))
    if row is None:
        return None
    source = f"{path.name} as of {table.as_of}" if table.as_of else path.name
    return Price(row.input, row.output, source, row.batch)
