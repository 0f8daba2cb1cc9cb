"""What stands in the JSON file of a direction? Its one description: checked types, and JSON Schema.

Writers fill in these dictionaries, mypy holds them to it, and :mod:`builder.pages.api.schemas`
makes of them the schemas that a site ships. A key whose value does not exist or is empty is left
out. Numbers have four significant digits. Texts are as they came, hidden characters too, and
hostile to whoever puts them into markup unescaped.
"""

from __future__ import annotations

from typing import Annotated, Literal, NotRequired

from pydantic import ConfigDict, Field, with_config
from typing_extensions import TypedDict  # pydantic needs it before Python 3.12

from builder.records import Kind, Pole, Scorer

#: Raised whenever a key is added, goes or means something else.
SCHEMA_VERSION = 1

#: No other keys than these.
closed = with_config(ConfigDict(extra="forbid"))

State = Literal["label", "none", "failed", "unlabelled"]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Address = Annotated[
    str,
    Field(
        pattern=r"^([a-z0-9._-]+/)*[a-z0-9._-]+(\?d=[a-z0-9._-]+)?$",
        description="Path of a file from the top of the site; `?d=` names a direction in a page",
    ),
]
Version = Annotated[
    int, Field(ge=1, description=f"Version of these schemas; {SCHEMA_VERSION} in this site")
]
Number = float | None
Interval = Annotated[tuple[float, float] | None, Field(description="95% interval: low, high")]
Token = tuple[str, float]


@closed
class ScoreRow(TypedDict):
    """How a label did on texts that its labeler never saw, by one scorer."""

    scorer: Scorer
    judge: str
    f1: NotRequired[
        Annotated[Number, Field(description="Of all documents; not of a scorer that only ranks")]
    ]
    f1_interval: NotRequired[Interval]
    auprc: NotRequired[Number]
    auprc_interval: NotRequired[Interval]
    chance: NotRequired[
        Annotated[Interval, Field(description="95% of the F1 of shuffled verdicts")]
    ]
    base_rate: NotRequired[Annotated[Number, Field(description="Share of positive documents")]]
    between: NotRequired[
        Annotated[Number, Field(description="Share of documents that count as neither")]
    ]
    n_positive: int
    n_negative: int
    unparsed: Annotated[int, Field(description="Texts without a verdict")]
    faults: NotRequired[Annotated[dict[str, int], Field(description="Why, by reason")]]
    beats: NotRequired[
        Annotated[Number, Field(description="Share of the poles of controls that score lower")]
    ]
    controls: Annotated[int, Field(description="Poles of controls that it is compared with")]
    doubt: NotRequired[
        Annotated[str | None, Field(description="Why the score speaks against the label")]
    ]
    cost: NotRequired[Number]


@closed
class Failure(TypedDict):
    """Why a labeler gave no label."""

    reason: str
    detail: NotRequired[str]


@closed
class Candidate(TypedDict):
    """One of several answers of a labeler."""

    chosen: bool
    text: NotRequired[str | None]
    failure: NotRequired[Failure | None]


@closed
class AnswerRow(TypedDict):
    """What one labeler made of a pole, and where that comes from."""

    labeler: NotRequired[str]
    model: NotRequired[
        Annotated[str | None, Field(description="Language model; not of rules and people")]
    ]
    text: NotRequired[
        Annotated[str | None, Field(description="The label; left out for no pattern or a failure")]
    ]
    failure: NotRequired[
        Annotated[Failure | None, Field(description="Not of a label nor of no pattern")]
    ]
    explanation: NotRequired[str]
    keywords: NotRequired[list[str]]
    kind: NotRequired[str]
    confidence: NotRequired[Number]
    agreement: NotRequired[
        Annotated[Number, Field(description="How alike the candidates are, 0 to 1")]
    ]
    author: NotRequired[str]
    created: NotRequired[Annotated[str, Field(description="Day of the answer, or empty")]]
    prompt_hash: NotRequired[str]
    prompt_tokens: NotRequired[int]
    completion_tokens: NotRequired[int]
    cost: NotRequired[
        Annotated[Number, Field(description="US dollars; left out where no price is known")]
    ]
    example_docs: NotRequired[
        Annotated[list[int], Field(description="Documents that it was made from")]
    ]
    candidates: NotRequired[
        Annotated[list[Candidate], Field(description="All answers, if there are several")]
    ]
    scores: NotRequired[list[ScoreRow]]


@closed
class ExampleRow(TypedDict):
    """A max-activating example: its peak token between a few tokens before and after."""

    role: str
    value: Annotated[float, Field(description="Activation at the peak, -1 to 1")]
    doc_id: int
    source: NotRequired[str]
    token: Annotated[int, Field(description="Place of the peak in the document, from 0")]
    before: NotRequired[str]
    peak: NotRequired[str]
    after: NotRequired[str]


@closed
class SourceRow(TypedDict):
    """How many of a pole's most extreme documents are of a source."""

    source: str
    n: int
    tail: NotRequired[
        Annotated[int, Field(description="Most extreme distinct documents looked at")]
    ]
    q_value: NotRequired[Number]


@closed
class PoleRow(TypedDict):
    """One pole of a direction."""

    state: State
    answers: NotRequired[
        Annotated[list[AnswerRow], Field(description="The best, which stands for the pole, first")]
    ]
    examples: NotRequired[
        Annotated[list[ExampleRow], Field(description="The most extreme documents first")]
    ]
    tail_documents: NotRequired[
        Annotated[int, Field(description="Most extreme distinct documents whose source counts")]
    ]
    sources: NotRequired[
        Annotated[list[SourceRow], Field(description="The commonest of them first, at most 5")]
    ]


@closed
class RangeRow(TypedDict):
    """Extent of the activations over the tokens of one role, of one model."""

    model: Literal["tuned", "base"]
    role: str
    n: int
    minimum: float
    maximum: float
    mean: float
    std: float


@closed
class ShiftRow(TypedDict):
    """How far tuning moved the activations, over the tokens of one role."""

    role: str
    n: int
    mean: float
    std: float
    outside: Annotated[float, Field(description="Share of tokens beyond all that the base reached")]


@closed
class NearRow(TypedDict):
    """A direction that points much the same way."""

    run: str
    id: str
    cosine: float


@closed
class TailRow(TypedDict):
    """The farthest end of a direction, in standard deviations of its role from its mean."""

    distance: float
    pole: Pole
    role: str


@closed
class DirectionFile(TypedDict):
    """``api/<run>/<name>.json``: one direction; its name is that of its page."""

    schema_version: Version
    run: str
    id: str
    content_hash: str
    page: Address
    kind: Kind
    layer: Annotated[int, Field(description="From 0")]
    writer: Annotated[str, Field(description="o_proj or down_proj; of a control its kind")]
    module: NotRequired[str]
    rank: Annotated[int, Field(description="From 0, largest singular value first")]
    sigma: NotRequired[Annotated[Number, Field(description="Singular value")]]
    energy: NotRequired[Annotated[Number, Field(description="sigma^2 / ||dW||_F^2")]]
    residual: NotRequired[
        Annotated[Number, Field(description="||dW^T u - sigma v|| / sigma, or its transpose")]
    ]
    gap: NotRequired[
        Annotated[Number, Field(description="To the nearest singular value, over sigma")]
    ]
    group: NotRequired[
        Annotated[list[int], Field(description="Ranks that cannot be told apart from this one")]
    ]
    shuffled_floor: NotRequired[
        Annotated[
            Number, Field(description="First singular value of the same entries in random places")
        ]
    ]
    rounding_floor: NotRequired[
        Annotated[
            Number, Field(description="First singular value of the rounding of stored weights")
        ]
    ]
    reads: NotRequired[
        Annotated[list[Token], Field(description="Head or neuron, share of ||v||^2")]
    ]
    promoted: NotRequired[
        Annotated[list[Token], Field(description="Token, logit, by the logit lens along u")]
    ]
    suppressed: NotRequired[
        Annotated[list[Token], Field(description="Token, logit, by the logit lens")]
    ]
    neighbours: NotRequired[list[NearRow]]
    tail: NotRequired[TailRow | None]
    ranges: NotRequired[list[RangeRow]]
    shifts: NotRequired[list[ShiftRow]]
    poles: dict[Pole, PoleRow]
