"""What stands in the JSON files of the site and of a run? See :mod:`builder.pages.api.form`."""

from __future__ import annotations

from typing import Annotated, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict  # pydantic needs it before Python 3.12

from builder.pages.api.form import Address, Digest, Interval, Number, State, Version, closed
from builder.records import Kind, Pole, Scorer


@closed
class Generator(TypedDict):
    """What made the site."""

    name: Literal["weightatlas"]
    version: str


@closed
class File(TypedDict):
    """A file to download."""

    path: Address
    bytes: int
    sha256: Digest
    about: Annotated[str, Field(description="What it holds, in a few words")]


@closed
class Counts(TypedDict):
    """How much a run holds."""

    directions: Annotated[int, Field(description="From the weights")]
    controls: Annotated[int, Field(description="Directions that no fine-tuning wrote")]
    documents: NotRequired[Annotated[int | None, Field(description="Scanned")]]
    tokens: NotRequired[Annotated[int | None, Field(description="Scanned")]]
    poles: Annotated[
        dict[State, int], Field(description="Poles of the directions from the weights, by state")
    ]


@closed
class Identity(TypedDict):
    """Which model a run is of."""

    run: Annotated[str, Field(description="Name of the run in addresses")]
    title: str
    page: Address
    base: NotRequired[
        Annotated[str | None, Field(description="A hub id, or the end of a local path")]
    ]
    base_revision: NotRequired[str | None]
    tuned: NotRequired[
        Annotated[str | None, Field(description="A hub id, or the end of a local path")]
    ]
    tuned_revision: NotRequired[str | None]
    method: Annotated[str, Field(description="delta: tuned minus base; raw: tuned alone")]
    how: Annotated[str, Field(description="How the model was tuned, as far as its files say")]
    counts: Counts


@closed
class Model(Identity):
    """A model of the site, in ``api/index.json``."""

    json: Address
    files: list[File]


@closed
class SiteFile(TypedDict):
    """``api/index.json``: what the site holds."""

    schema_version: Version
    generator: Generator
    title: str
    url: NotRequired[Annotated[str | None, Field(description="Address of the site")]]
    models: list[Model]


@closed
class BriefScore(TypedDict):
    """The score that lists show of a label."""

    scorer: Scorer
    f1: NotRequired[Number]
    f1_interval: NotRequired[Interval]
    beats: NotRequired[
        Annotated[Number, Field(description="Share of the poles of controls that score lower")]
    ]


@closed
class BriefPole(TypedDict):
    """One pole of a direction, in brief."""

    state: State
    label: NotRequired[str | None]
    labeler: NotRequired[str | None]
    score: NotRequired[BriefScore | None]


@closed
class BriefDirection(TypedDict):
    """A direction, in the list of its run."""

    id: str
    content_hash: Annotated[
        str, Field(description="Follows the weights and the rank, whatever run they are met in")
    ]
    page: Address
    json: Address
    kind: Kind
    sigma: NotRequired[Annotated[Number, Field(description="Singular value")]]
    poles: dict[Pole, BriefPole]


@closed
class Source(TypedDict):
    """A source of the corpus."""

    name: NotRequired[str]
    licence: NotRequired[str | None]
    where: NotRequired[
        Annotated[str | None, Field(description="A dataset, or the end of a local path")]
    ]


@closed
class Spent(TypedDict):
    """What a stage asked of one model."""

    stage: str
    model: str
    requests: int
    prompt_tokens: int
    completion_tokens: int
    cost: NotRequired[
        Annotated[Number, Field(description="US dollars; left out where no price is known")]
    ]


@closed
class Counted(TypedDict):
    """How many of something."""

    what: str
    name: str
    layer: NotRequired[int | None]
    n: int


@closed
class RunFile(Identity):
    """``api/<run>/index.json``: a run and all of its directions, in scan order."""

    schema_version: Version
    d_model: NotRequired[int | None]
    n_layers: int
    facts: NotRequired[dict[str, str]]
    settings: NotRequired[dict[str, str]]
    versions: NotRequired[dict[str, str]]
    corpus: NotRequired[list[Source]]
    counted: NotRequired[
        Annotated[
            list[Counted],
            Field(description="Documents, tokens, what was excluded, dropped and noted, and why"),
        ]
    ]
    spent: NotRequired[list[Spent]]
    directions: list[BriefDirection]
