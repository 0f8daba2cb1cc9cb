"""The values that flow between the stages: frozen, slotted, and ignorant of every stage.

A stage yields new records keyed by an id and never fills in another stage's. Arrays are numpy;
nothing here imports torch or duckdb.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

Writer = Literal["o_proj", "down_proj"]
Pole = Literal["max", "min"]
Kind = Literal["delta", "raw", "control"]
Side = Literal["left", "right"]
Scorer = Literal["detection", "fuzzing", "embedding"]
Stratum = Literal["pole", "other", "middle", "random"]

WRITERS: tuple[Writer, ...] = ("o_proj", "down_proj")
#: The matrices that read the residual stream; a mixture's or a fused one's parts count as one.
READERS: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj")
#: What a control of each kind is; the name stands in the place of the writer in its id.
CONTROLS: dict[str, str] = {
    "random": "a random unit direction",
    "base": "a top singular vector of the base weights",
    "shuffled": "a top singular vector of the weight difference with its entries shuffled",
}
POLES: tuple[Pole, ...] = ("max", "min")

#: Roles a token can have, in the order of their index in every array and table. ``text`` is a
#: plain document without roles; ``template`` is whatever the chat template put around messages.
ROLES: tuple[str, ...] = ("user", "assistant", "system", "tool", "text", "template")
#: Roles whose tokens a person or a model wrote.
CONTENT_ROLES: tuple[str, ...] = ROLES[:-1]
#: The pseudo-role of lists that take each document once, by its best content role.
ANY_ROLE = "any"
#: The labeler of labels that a person wrote.
HAND = "by hand"
#: The labeler of labels from statistics of words (builder.labels.keywords).
KEYWORDS = "keywords"
SCORERS: tuple[Scorer, ...] = ("detection", "fuzzing", "embedding")
#: Scorers that put texts in an order and say yes to none, since a cosine means yes from no value
#: that is known. They give no F1, and are compared by AUPRC.
RANKING: frozenset[Scorer] = frozenset({"embedding"})
STRATA: tuple[Stratum, ...] = ("pole", "other", "middle", "random")

#: What a scan measures: the tuned model's activations and, with the base scanned as well, the
#: base's at the same tokens, and the difference tuned - base.
MODELS: tuple[str, ...] = ("tuned", "base", "difference")
#: Documents are dealt into this many levels at random, half of them into level 0, a quarter into
#: level 1 and so on; the rest goes into the last. The extremes over the levels from l on are those
#: of a random 2^-l of the corpus.
LEVELS = 12

#: Extremes of documents that are closer than this to the next are taken for one value.
ROUNDING = 2e-6

#: Histograms count activations in this many equal bins over [-1, 1].
HISTOGRAM_BINS = 400
#: Per-token activations of an example are stored as ``round(activation * ACTIVATION_SCALE)``.
ACTIVATION_SCALE = 32767


@dataclass(frozen=True, slots=True)
class ModelRef:
    """Where a model comes from: a local folder or a hub id with the revision it was pinned to."""

    path: str
    revision: str | None = None
    kind: Literal["checkpoint", "adapter"] = "checkpoint"

    def __str__(self) -> str:
        return f"{self.path}@{self.revision[:12]}" if self.revision else self.path


@dataclass(frozen=True, slots=True)
class Hookpoint:
    """One place in the model: decoder layer (from 0), writer, and the writer's module path.

    ``writer`` is ``"o_proj"`` or ``"down_proj"``, in spectra also one of READERS; a control has its
    kind there (one of CONTROLS), and in ``module`` the matrix it was made from, if any.
    """

    layer: int
    writer: str
    module: str = ""

    @property
    def key(self) -> str:
        """``L07.down_proj``; shown to people, never parsed back."""
        return f"L{self.layer:02d}.{self.writer}"


@dataclass(frozen=True, slots=True, eq=False)
class Direction:
    """One unit vector of the residual stream, [d_model] float32, and where it comes from.

    ``sigma`` is its singular value, ``energy`` sigma^2 / ||dW||_F^2, ``residual`` the larger of
    ||dW^T u - sigma v|| and ||dW v - sigma u||, over sigma; all three are NaN for a control that
    is no singular vector. Sign: the entry of largest magnitude is positive. ``promoted`` and
    ``suppressed`` are (token text, logit) by the logit lens, strongest first, for a residual
    stream that points along u alone; empty where the lens has no meaning.
    ``gap`` is the distance of sigma to the nearest other singular value of the matrix, over sigma;
    ``group`` are the ranks (its own among them) that such gaps are too small to tell apart, of
    which only the common subspace is determined; empty for a direction that stands alone.
    ``reads`` says where its input comes from by the right singular vector v: (``head 3``, share of
    ||v||^2) or (``neuron 1204``, share), largest first. ``neighbours`` are (id, cosine) of the
    nearest other directions of the run, by magnitude of the cosine.
    ``content_hash``: 16 hex digits of the bytes the matrix was made from and the rank, so that it
    stays the same under a re-run on other hardware and changes when the weights do.
    """

    hookpoint: Hookpoint
    rank: int
    vector: npt.NDArray[np.float32]
    content_hash: str
    kind: Kind = "delta"
    sigma: float = float("nan")
    energy: float = float("nan")
    residual: float = float("nan")
    promoted: tuple[tuple[str, float], ...] = ()
    suppressed: tuple[tuple[str, float], ...] = ()
    gap: float = float("nan")
    group: tuple[int, ...] = ()
    reads: tuple[tuple[str, float], ...] = ()
    neighbours: tuple[tuple[str, float], ...] = ()

    @property
    def id(self) -> str:
        """``L07.down_proj.u03``; stable for a place in the model, never parsed back."""
        return f"{self.hookpoint.key}.u{self.rank:02d}"


@dataclass(frozen=True, slots=True, eq=False)
class Spectrum:
    """Singular values of one weight difference, largest first, and its size.

    ``sigmas`` are the top ones that were computed (at least the directions kept); all of them if
    ``is_full``. ``frobenius`` is ||dW||_F, ``shape`` is (d_out, d_in), ``stable_rank``
    ||dW||_F^2 / sigma_1^2. ``side`` is that of the singular vectors that lie in the residual
    stream: left for what writes to it, right for what reads it; ``space`` is where the vectors of
    the other side lie (``heads``, ``keys``, ``values``, ``neurons``).

    Two floors that sigma_1 of a meaningless difference would reach: ``shuffled_floor`` with entries
    of the same size in random places (more if their mean is not zero or a few dwarf the rest, as
    shuffled controls show), ``rounding_floor`` from the rounding of the stored tuned weights
    alone (NaN where nothing was rounded).

    Of a full spectrum, with p_i = sigma_i / sum(sigma): ``entropy`` -sum p ln p,
    ``concentration`` p_1 and ``effective_rank`` exp(entropy); NaN of a truncated one.
    Source: Paul 2026 (arXiv 2604.08844).
    """

    hookpoint: Hookpoint
    shape: tuple[int, int]
    sigmas: npt.NDArray[np.float32]
    frobenius: float
    stable_rank: float
    side: Side = "left"
    space: str = ""
    shuffled_floor: float = float("nan")
    rounding_floor: float = float("nan")
    is_full: bool = False
    entropy: float = float("nan")
    concentration: float = float("nan")
    effective_rank: float = float("nan")


@dataclass(frozen=True, slots=True, eq=False)
class DirectionSet:
    """All directions of a run in scan order, the spectra they come from, and their source."""

    base: ModelRef | None
    tuned: ModelRef
    method: str
    d_model: int
    n_layers: int
    directions: tuple[Direction, ...]
    spectra: tuple[Spectrum, ...] = ()
    facts: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """Consecutive tokens of one document: the text and where each token ends in it.

    ``token_ends`` are character offsets into ``text``, one per token, non-decreasing; a token
    that holds only part of a character ends where that character ends. ``start`` is the index of
    the first token within the document.
    """

    doc_id: int
    source: str
    start: int
    text: str
    token_ends: npt.NDArray[np.uint32]

    def part(self, first: int, length: int) -> Window:
        """At most ``length`` of its tokens from its token ``first`` on; it must have that token."""
        ends = self.token_ends[first : first + length]
        start = int(self.token_ends[first - 1]) if first else 0
        stop = int(ends[-1]) if len(ends) else start
        return Window(
            self.doc_id, self.source, self.start + first, self.text[start:stop], ends - start
        )


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """The window around the most extreme token of one document for one direction and pole.

    ``activations`` (int16, ACTIVATION_SCALE per unit) has one value per token of the window,
    ``base_activations`` the base's, None where it was not scanned; ``peak`` is the index of the
    extreme token in it; ``roles`` one role index per token; ``duplicates`` counts further documents
    of the corpus that are near-duplicates of it, ``repeats`` those that peak at the same after the
    same tokens (one of each cluster of near-duplicates, and no more than a list is long); ``place``
    is the rank from 0.
    """

    direction: str
    role: str
    pole: Pole
    place: int
    value: float
    peak: int
    duplicates: int
    window: Window
    activations: npt.NDArray[np.int16]
    roles: npt.NDArray[np.uint8]
    base_activations: npt.NDArray[np.int16] | None = None
    repeats: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Histogram:
    """Counts of a direction's activations over one role in HISTOGRAM_BINS bins of [-1, 1].

    Of the tuned model, the base or their difference, as asked for (see MODELS).
    """

    direction: str
    role: str
    counts: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Range:
    """Extent of a direction's activations over the tokens of one role, of one of MODELS."""

    direction: str
    role: str
    n: int
    minimum: float
    maximum: float
    mean: float
    std: float


@dataclass(frozen=True, slots=True)
class Anomaly:
    """An activation beyond the range that calibration reached for its direction and role.

    ``token`` is the index in the conversation of the token that goes farthest beyond the range's
    ``pole``, ``text`` what it stands for, ``value`` its activation, ``by`` how far it lies beyond;
    ``tokens`` of the role lie beyond in all. ``label`` is that of the pole, if it has one.
    """

    direction: str
    pole: Pole
    role: str
    token: int
    text: str
    value: float
    low: float
    high: float
    by: float
    tokens: int
    label: str | None = None


@dataclass(frozen=True, slots=True)
class Shift:
    """How far tuning moved the activations of a direction, over the tokens of one role.

    ``mean`` and ``std`` are those of tuned minus base, token by token. ``outside`` is the share of
    tokens at which the tuned model is beyond the least or greatest value of the base; a lower
    bound to within a bin, since it is counted by the histogram's bins that lie wholly beyond.
    """

    direction: str
    role: str
    n: int
    mean: float
    std: float
    outside: float


@dataclass(frozen=True, slots=True)
class Label:
    """A short text for one pole of a direction, by a labeler; ``text`` of at most 10 words.

    ``text`` None means the labeler found no consistent pattern, which is an answer. ``keywords``
    are single terms that search may use as well. ``labeler`` names the method (``keywords``), the
    model that answered, or HAND; ``prompt_hash`` the prompt it saw (empty without one).

    A labeler may give several candidates for a pole, made from different examples: ``candidate``
    counts them from 0, ``is_chosen`` is true of one, and ``agreement`` (0 to 1, None of a single
    one) is how alike their texts are. ``example_docs`` are the documents it was made from.
    ``created`` is the day the answer arrived and ``author`` the person, where one is known;
    ``cost`` is what the request cost in US dollars, None where no price is known.
    """

    direction: str
    pole: Pole
    labeler: str
    text: str | None
    explanation: str = ""
    keywords: tuple[str, ...] = ()
    kind: str = ""
    confidence: float | None = None
    prompt_hash: str = ""
    example_docs: tuple[int, ...] = ()
    prompt_tokens: int = 0
    completion_tokens: int = 0
    candidate: int = 0
    is_chosen: bool = True
    agreement: float | None = None
    author: str = ""
    created: str = ""
    cost: float | None = None


@dataclass(frozen=True, slots=True)
class LabelFailure:
    """Why one pole has no label: a typed reason and what was seen; never shown as a label.

    ``reason``: ``refusal`` ``truncated`` ``empty`` ``malformed`` ``schema`` ``content_filter``
    ``timeout`` ``http`` ``no_examples`` ``budget`` (not asked, since the budget was used up).
    ``candidate`` as in :class:`Label`: a pole may have a label although one candidate failed.
    """

    direction: str
    pole: Pole
    labeler: str
    reason: str
    detail: str = ""
    prompt_hash: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    candidate: int = 0
    cost: float | None = None


@dataclass(frozen=True, slots=True)
class Score:
    """How well a label tells the texts at a pole from others, on texts its labeler never saw.

    ``text`` is the label that was judged, ``judge`` who judged it. Positive are documents as
    extreme as the examples kept, negative those that reach at most half-way to them from the median
    document; ``between`` is the share of documents that are neither and are not counted. ``f1`` and
    ``auprc`` are those of the whole population, every judged text weighing as much as the share of
    documents it stands for (``base_rate`` is that of the positive ones among both), with 95%
    intervals by stratified bootstrap; ``chance`` are the bounds of ``f1`` over shuffled verdicts.
    All are None when nothing could be judged, and those of ``f1`` for a scorer of RANKING.
    ``unparsed`` texts got no verdict, by reason in ``faults``, and count as neither right nor
    wrong. ``split`` is ``test``, or ``select`` for the texts that decide between candidates.
    """

    direction: str
    pole: Pole
    labeler: str
    scorer: Scorer
    judge: str
    text: str
    f1: float | None
    auprc: float | None
    f1_interval: tuple[float, float] | None = None
    auprc_interval: tuple[float, float] | None = None
    chance: tuple[float, float] | None = None
    base_rate: float = 0.0
    between: float = 0.0
    n_positive: int = 0
    n_negative: int = 0
    unparsed: int = 0
    faults: Mapping[str, int] = field(default_factory=dict)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float | None = None
    candidate: int = 0
    split: Literal["test", "select"] = "test"
    judged: tuple[Judged, ...] = ()

    @property
    def value(self) -> float | None:
        """What scores by the same scorer are compared by: F1, or AUPRC for a scorer of RANKING."""
        return self.auprc if self.scorer in RANKING else self.f1


class Judged(NamedTuple):
    """One text that a label was judged on. A tuple: a run has a million of them.

    ``stratum``: ``pole`` (of the examples of this pole), ``other`` (of the other pole), ``middle``
    or ``random`` (of the held-out random documents: beyond the median, and below it). ``place`` is
    the place in the list it comes from: the pole's examples (role "any") or ``RunStore.held_out``.
    ``verdict`` from 0 to 1, how well the label fits by the judge, at least 0.5 meaning yes (but for
    scorers of RANKING); None without one. ``weight`` is the share of documents it stands for.

    Of the window in that list the judge saw ``length`` tokens from its token ``first`` on, which is
    ``window.part(first, length)``; ``marked`` are the tokens of that part that were marked (fuzzing
    only).
    """

    stratum: Stratum
    place: int
    doc_id: int
    truth: bool
    verdict: float | None
    weight: float
    first: int
    length: int
    marked: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Similar:
    """Another pole whose label says much the same: ``similarity`` from 0 to 1, measured ``by``."""

    direction: str
    pole: Pole
    other: str
    other_pole: Pole
    similarity: float
    by: str


@dataclass(frozen=True, slots=True)
class Spend:
    """What a stage (``labels`` or ``scores``) asked of one model, as its server counted it.

    ``requests`` got a reply, or may have to be paid for without one (no answer in time, or the
    process was killed); ``unmetered`` of them have no believable count of tokens, which was
    estimated. ``cost`` in US dollars, None where no price is known.
    """

    stage: str
    model: str
    requests: int
    prompt_tokens: int
    completion_tokens: int
    unmetered: int
    cost: float | None
