"""Settings of a run: what a recipe (TOML) may say, checked once, at the edge.

A component takes its own section, never the whole. Unknown settings are refused with the list of
known ones. ``run.toml`` in a run folder is the resolved recipe and can be run again as it is.
"""

from __future__ import annotations

import errno
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import tomli_w
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from builder.errors import ConfigError, shown
from builder.records import RANKING, Scorer

#: Shard files and tensor libraries hold counts in 32 bits.
_MOST = 2**31 - 1
Count = Annotated[int, Field(ge=1, le=_MOST)]
CountOrNone = Annotated[int, Field(ge=0, le=_MOST)]
Dollars = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]

#: The form of a model or dataset of the hub: a name, or a name of an owner's.
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
#: Folder of findings that a recipe need not name.
FINDINGS = "findings"
#: Settings whose value may hold a secret and is therefore never repeated.
_UNSHOWN = frozenset({"label", "label.base_url", "score", "score.base_url"})
#: Characters of an address that need no quoting, in markup neither.
_URL = re.compile(r"[A-Za-z0-9:/._~%+,\[\]-]{1,500}")
_USER_INFO = re.compile(r"\s*([a-z][a-z0-9+.-]*:)?[/\\]*[^/\\?#]*@", re.IGNORECASE)


class Section(BaseModel):
    """A table of settings; immutable, and closed to names it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)


class ModelSettings(Section):
    """Which models: ``base`` and ``tuned`` are local folders or hub ids.

    Each may be a PEFT LoRA adapter. Relative paths are meant from the recipe's folder.
    """

    #: Where it is empty, the base is the one that the adapter or the model's card names.
    base: str = ""
    tuned: str
    #: The whole model that adapters go on: needed where they name another, or none, and ``base`` is
    #: a tune to compare with. Otherwise a ``base`` that is a whole model is what ``tuned`` goes on.
    adapter_base: str = ""
    #: Branch, tag or commit on the hub; resolved to a commit and recorded.
    base_revision: str | None = None
    tuned_revision: str | None = None
    adapter_base_revision: str | None = None
    #: How the site calls the pair; the tuned model's name when empty.
    title: str = ""
    #: Which stage of training this model is (1: SFT, 2: DPO ...): runs with a number are followed
    #: from stage to stage on the page that compares them. Without one, a run whose base is
    #: another's tuned model follows that one.
    stage: Count | None = None


class DirectionSettings(Section):
    """Which directions are taken from the weights."""

    #: Left singular vectors kept of each matrix.
    k: Count = 20
    #: ``delta``: of W_tuned - W_base; ``raw``: of W_tuned alone, when no base is published.
    method: Literal["delta", "raw"] = "delta"
    #: Controls per layer, which go through the same scan, labels and pages: random unit
    #: directions, top singular vectors of the base weights, and of an entry-shuffled difference.
    random_controls: CountOrNone = 2
    base_controls: CountOrNone = 1
    shuffled_controls: CountOrNone = 1
    #: ``all``: full spectra of all matrices, those that read the residual stream as well.
    matrices: Literal["writers", "all"] = "writers"
    #: ``auto``: CUDA, else the CPU.
    device: str = "auto"
    #: Promoted and suppressed tokens kept of each direction.
    logit_lens_tokens: CountOrNone = 12
    seed: Seed = 0


class Source(Section):
    """One source of documents: a local file or folder, or a ``datasets`` name.

    Exactly one of ``path`` and ``dataset``. ``path`` may be a file or a glob pattern of ``.jsonl``,
    ``.jsonl.gz``, ``.json``-lines or ``.parquet`` files. Columns are found by their usual names
    (messages / conversation / conversations, text) unless named here.
    """

    path: str = ""
    dataset: str = ""
    config: str | None = None
    split: str = "train"
    revision: str | None = None
    #: Shown on pages where a row has no ``source`` of its own.
    name: str = ""
    messages_column: str | None = None
    text_column: str | None = None
    source_column: str = "source"
    #: Stop after this many rows of this source.
    max_rows: Count | None = None
    #: Share of the documents, against the weights of the other sources, while they last. Without
    #: any weight the sources follow one another.
    weight: Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)] | None = None
    #: Put before a conversation that has no system message of its own.
    system_prompt: str = ""
    #: Shown on the site beside what is quoted from it.
    licence: str = ""

    @model_validator(mode="after")
    def _one_place(self) -> Source:
        if bool(self.path) == bool(self.dataset):
            raise ValueError("a source needs exactly one of 'path' and 'dataset'")
        return self


class CorpusSettings(Section):
    """Which documents are scanned."""

    #: Needed from the scan on; directions alone read no text.
    sources: tuple[Source, ...] = ()
    #: Stop after this many documents in all.
    max_documents: Count | None = None
    #: A source with a larger share of unreadable rows is refused.
    max_bad_share: Annotated[float, Field(ge=0, le=1)] = 0.01
    #: Documents that share at least this much of their word triples (Jaccard, as MinHash estimates
    #: it) are one text to every list of examples.
    near_duplicate: Annotated[float, Field(gt=0, le=1)] = 0.8
    #: Of the order in which weighted sources are mixed.
    seed: Seed = 0


class ScanSettings(Section):
    """How documents are run through the model and what is kept."""

    #: The longest piece of a document that the model reads at once (its context at most).
    max_tokens: Count = 1024
    #: Longer documents: ``split`` into pieces that keep their document's id, or ``cut``.
    long_documents: Literal["split", "cut"] = "split"
    #: Tokens before a further piece of a document that the model reads again, for context only.
    overlap: CountOrNone = 64
    #: Padded tokens in one forward pass.
    batch_tokens: Count = 4096
    #: Documents in one shard, the unit of resuming.
    shard_documents: Count = 2048
    #: Examples kept at each pole, per role.
    top: Count = 20
    #: Tokens kept on each side of the peak.
    window: Count = 48
    #: Documents at each pole, whatever the role, whose sources are counted.
    tail: Count = 100
    #: Random documents kept as the contrast for labels.
    reservoir: Count = 400
    #: Further random documents, kept for the scores of labels alone.
    held_out: CountOrNone = 200
    #: Of the random documents, those shown at each pole at evenly spaced quantiles.
    quantiles: CountOrNone = 5
    #: The same tokens through the base model too, at the same directions.
    with_base: bool = False
    #: A position whose norm is above this many medians of its document is an attention sink.
    sink_factor: Annotated[float, Field(gt=1)] = 10.0
    #: ``auto``: CUDA, else Apple's GPU, else the CPU. ``spread``: over all GPUs, for a model
    #: that is larger than one.
    device: str = "auto"
    #: Weights and forward pass; cosines are float32 in any case.
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    seed: Seed = 0


class ComputeSettings(Section):
    """Who does the work of a scan; changes no result beyond rounding."""

    #: ``local``: this machine; ``ray``: a Ray cluster, or one started here.
    executor: Literal["local", "ray"] = "local"
    #: Processes (or Ray actors) that hold a model each; one: no process but this.
    workers: Count = 1
    #: Of a running Ray cluster; started on this machine when empty.
    address: str = ""
    #: Processor threads of each worker; the machine's shared out when unset.
    threads: Count | None = None
    #: How often a shard is tried again after its worker was lost.
    retries: CountOrNone = 2


def _without_user(base_url: str) -> str:
    if _USER_INFO.match(base_url):
        raise ValueError(
            "holds a user name or password (something before an '@'), and settings are "
            "published; put the key into the environment variable that label.api_key_env names"
        )
    return base_url


#: Where an endpoint is; settings are published, so it may hold no secret.
BaseUrl = Annotated[str, AfterValidator(_without_user)]


class LabelSettings(Section):
    """Who names the poles of a direction."""

    #: ``keywords`` needs nothing; ``openai`` asks any OpenAI-compatible endpoint.
    labeler: Literal["keywords", "openai"] = "keywords"
    #: Model asked for by the ``openai`` labeler.
    model: str = ""
    #: Endpoint; the client's own default (``OPENAI_BASE_URL``) when empty.
    base_url: BaseUrl = ""
    #: Name of the environment variable that holds the key. The key itself is never a setting.
    api_key_env: str = "OPENAI_API_KEY"
    #: Model for embeddings at the same endpoint, by which similar labels are found; by their words
    #: when empty.
    embedding_model: str = ""
    #: Examples of the pole, and contrast examples, shown to the explainer.
    examples: Count = 10
    contrast: CountOrNone = 10
    #: Labels asked for each pole, each from another sample of its examples.
    candidates: Annotated[int, Field(ge=1, le=100)] = 1
    temperature: float | None = None
    max_completion_tokens: Count = 400
    #: Seconds that one request may take in all.
    timeout: Annotated[float, Field(gt=0, le=86_400)] = 60.0
    #: Requests on their way at once.
    concurrency: Annotated[int, Field(ge=1, le=1000)] = 8
    #: US dollars that this run's requests may cost in all, those of earlier calls among them.
    budget: Dollars | None = None
    #: What the model costs, in US dollars per million tokens, where no table of prices says so.
    price_input: Dollars | None = None
    price_output: Dollars | None = None


def _with_f1(scorers: tuple[Scorer, ...]) -> tuple[Scorer, ...]:
    if RANKING.issuperset(scorers):
        raise ValueError(
            "needs 'detection' or 'fuzzing': candidates are chosen, and labels compared, by F1, "
            "which 'embedding' does not give"
        )
    return scorers


class ScoreSettings(Section):
    """How labels are scored, and who judges those of a language model."""

    #: Language model that judges; that of ``label`` when empty. Keyword labels are always judged by
    #: counting words, and hand-made ones where no model is named.
    model: str = ""
    #: Endpoint of that model; that of ``label`` when empty.
    base_url: BaseUrl = ""
    #: ``detection``: each text as a whole; ``fuzzing``: the tokens marked in it; ``embedding``: how
    #: near each text is to the label by ``label.embedding_model``, besides one of the others.
    scorers: Annotated[tuple[Scorer, ...], AfterValidator(_with_f1)] = ("detection", "fuzzing")
    #: At most so many held-out texts of the pole, of the other pole, and random ones (half of these
    #: below the median, half between it and half-way to the pole). Counting words in whole texts
    #: costs nothing, and takes all there are.
    positives: Count = 10
    other: CountOrNone = 10
    random: Count = 40
    #: Texts judged in one request.
    batch: Annotated[int, Field(ge=1, le=100)] = 10
    max_completion_tokens: Count = 600
    temperature: float | None = None


def _site_url(url: str) -> str:
    """The address of a site's top, with a slash at its end; empty for none."""
    if not url:
        return url
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good or "@" in parts.netloc or parts.query or parts.fragment or not _URL.fullmatch(url):
        raise ValueError("expected the address of a folder, such as https://example.org/atlas/")
    return url if url.endswith("/") else f"{url}/"


SiteUrl = Annotated[str, AfterValidator(_site_url)]


class SiteSettings(Section):
    """How the site looks and what it holds."""

    out: str = "site"
    title: str = "weightatlas"
    #: Examples at each pole; half as many for a single role. In shards (see ``layout``) at most 10,
    #: and a fifth as many for a single role.
    examples: Count = 20
    #: Tokens on each side of the peak, half of them shown at first; half as many for a single role.
    context: Count = 32
    #: A page for each direction, or many together in shards, which take a third of the room;
    #: ``auto`` takes shards for more than 25,000 directions.
    layout: Literal["auto", "pages", "shards"] = "auto"
    #: No site is made whose pages would take more megabytes; GitHub Pages takes 1,000.
    largest_mb: Count = 900
    #: Files offered for download: the light tables, also texts and activations, also the database.
    downloads: Literal["tables", "examples", "database"] = "tables"
    #: Address that the site will have; cards, the site map and the feed need it.
    url: SiteUrl = ""
    #: Who is to be cited for the site.
    authors: tuple[Annotated[str, Field(min_length=1, max_length=200)], ...] = ()
    #: Folder of the findings that the site shows; ``findings`` beside the recipe when unset and
    #: there, none when empty.
    findings: str | None = None
    #: What is covered in every text of the corpus and in labels: ``email``, ``phone`` and ``key``
    #: unless set, also ``ip`` (public addresses of machines); nothing when empty.
    redact: tuple[Literal["email", "phone", "key", "ip"], ...] = ("email", "phone", "key")
    #: File of further words and phrases to cover, one a line.
    words: str = ""
    #: What readers are warned of, on the first page and each model's.
    warning: Annotated[str, Field(max_length=2000)] = ""
    #: Names of sources, or patterns such as ``WildChat*``, whose texts are shown on a click only.
    blur: tuple[Annotated[str, Field(min_length=1, max_length=200)], ...] = ()


class Settings(Section):
    """A whole run, as a recipe states it."""

    #: Name of the run and of its folder.
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
    model: ModelSettings
    directions: DirectionSettings = DirectionSettings()
    corpus: CorpusSettings = CorpusSettings()
    scan: ScanSettings = ScanSettings()
    compute: ComputeSettings = ComputeSettings()
    label: LabelSettings = LabelSettings()
    score: ScoreSettings = ScoreSettings()
    site: SiteSettings = SiteSettings()
    #: Folder that holds run folders.
    runs: str = "runs"


def load_settings(path: Path, overrides: Sequence[str] = ()) -> Settings:
    """The settings of a recipe file, with ``key=value`` overrides applied.

    Keys are dotted (``scan.top=10``), values are TOML and else taken as text. Relative paths of
    models and corpora that exist beside the recipe are resolved from there.
    Raises ConfigError for a missing file, bad TOML, an unknown setting or a bad value.
    """
    where = shown(str(path).replace("\0", "\\0"))
    try:
        # Editors on Windows begin a file with a byte order mark.
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise ConfigError(f"{where}: no such recipe") from error
    except OSError as error:
        raise ConfigError(f"{where}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{where}: is not UTF-8 text, as a recipe must be: {error}") from error
    except ValueError as error:
        raise ConfigError(f"{where}: cannot be the name of a recipe: {error}") from error
    try:
        table = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{where}: not valid TOML: {error}") from error
    _resolve_paths(table, path.parent)
    for override in overrides:
        apply_override(table, override)
    return parse_settings(table, where=where)


def parse_settings(table: Mapping[str, Any], *, where: str = "settings") -> Settings:
    """Checked settings from a plain table; raises ConfigError with every fault on its own line."""
    try:
        settings = Settings.model_validate(table)
    except ValidationError as error:
        faults = [_fault(dict(item)) for item in error.errors()]
        raise ConfigError("\n  ".join([f"{where}:", *faults])) from error
    if faults := list(_impossible_paths(settings)):
        raise ConfigError("\n  ".join([f"{where}:", *faults]))
    return settings


def dump_settings(settings: Settings) -> str:
    """The settings as TOML, every default written out, that :func:`load_settings` reads back."""
    return tomli_w.dumps(settings.model_dump(mode="json", exclude_none=True))


def here(name: str) -> str:
    """A name that is a path here as an absolute one, so that it means the same from anywhere."""
    try:
        path = Path(name).expanduser()
        return str(path.resolve()) if name.strip() and path.exists() else name
    except (OSError, RuntimeError, ValueError):  # no path
        return name


def run_name(model: str) -> str:
    """A name for the run of a model: its public name, as far as the name of a run may go."""
    plain = re.sub(r"[^a-z0-9._-]+", "-", public_name(model).rpartition("/")[2].lower())
    return plain.strip("-._")[:64] or "run"


def public_name(name: str) -> str:
    """A hub id as it is; of a local path only its last part, which names no user and no machine."""
    try:
        local = Path(name).expanduser()
        if local.is_absolute() or local.exists() or not HUB_ID.fullmatch(name):
            return local.resolve().name or "local files"
    except (OSError, RuntimeError, ValueError):  # no path: too long, a NUL, nobody's home
        return name.rstrip("/").rpartition("/")[2][:64] or "local files"
    return name


def known_settings(model: type[BaseModel] = Settings, prefix: str = "") -> list[str]:
    """Dotted names of every setting, sections descended into."""
    names: list[str] = []
    for name, info in model.model_fields.items():
        section = _section_of(info.annotation)
        if section is None:
            names.append(prefix + name)
        elif _is_many(info.annotation):
            names += known_settings(section, f"{prefix}{name}[].")
        else:
            names += known_settings(section, f"{prefix}{name}.")
    return names


def apply_override(table: dict[str, Any], override: str) -> None:
    """Sets one ``dotted.key=value`` in place; a number in the key indexes a list."""
    key, separator, text = override.partition("=")
    if not separator or not re.fullmatch(r"[a-z_]+(\.([a-z_]+|\d+))*", key.strip()):
        raise ConfigError(f"--set {shown(key)}: expected key=value, such as scan.top=10")
    value: Any = text
    try:
        found = tomllib.loads(f"value = {text}")
    except ValueError:
        pass
    except RecursionError as error:
        raise ConfigError(f"--set {shown(key)}: the value is nested too deeply") from error
    else:
        value = found.pop("value")
        if found:
            raise ConfigError(
                f"--set {shown(key)}: the value goes on with further settings "
                f"({shown(', '.join(found))}); give each a --set of its own"
            )
    *parents, last = key.strip().split(".")
    node: Any = table
    try:
        for part in parents:
            node = node[int(part)] if isinstance(node, list) else node.setdefault(part, {})
        if isinstance(node, list):
            node[int(last)] = value
        else:
            node[last] = value
    except (TypeError, ValueError, IndexError, AttributeError) as error:
        raise ConfigError(f"--set {shown(key)}: there is no such place in the settings") from error


def _fault(item: dict[str, Any]) -> str:
    path = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        *parents, name = item["loc"]
        section = _section_at(parents)
        known = ", ".join(sorted(section.model_fields)) if section else ""
        return f"{path}: unknown setting {name!r}; known here: {known}"
    if item["type"] == "missing":
        return f"{path}: needed, but missing"
    # What pydantic puts before the text of a validator of ours.
    message = item["msg"].removeprefix("Value error, ")
    if path in _UNSHOWN:
        return f"{path}: {message}"
    return f"{path}: {message} (found {shown(repr(item['input']))})"


def _impossible_paths(settings: Settings) -> Iterator[str]:
    """A line for every setting whose value cannot be a path on this system, whatever is there."""
    places = {
        "model.base": settings.model.base,
        "model.tuned": settings.model.tuned,
        "model.adapter_base": settings.model.adapter_base,
        **{f"corpus.sources.{n}.path": s.path for n, s in enumerate(settings.corpus.sources)},
        "site.out": settings.site.out,
        "site.findings": settings.site.findings or "",
        "site.words": settings.site.words,
        "runs": settings.runs,
    }
    for name, place in places.items():
        fault = ""
        try:
            Path(place).lstat()
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                fault = "is too long for a path on this system"
        except ValueError:
            fault = "holds a character that no path can hold"
        if fault:
            yield f"{name}: {fault} (found {shown(repr(place))})"


def _section_at(parents: Sequence[Any]) -> type[BaseModel] | None:
    section: type[BaseModel] | None = Settings
    for part in parents:
        if isinstance(part, int) or section is None:
            continue
        info = section.model_fields.get(str(part))
        section = _section_of(info.annotation) if info else None
    return section


def _section_of(annotation: Any) -> type[BaseModel] | None:
    for candidate in (annotation, *getattr(annotation, "__args__", ())):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def _is_many(annotation: Any) -> bool:
    return getattr(annotation, "__origin__", None) is tuple


def _resolve_paths(table: dict[str, Any], folder: Path) -> None:
    """Makes existing relative paths absolute from the recipe's folder, in place."""

    def resolved(text: Any) -> Any:
        if isinstance(text, str) and text and not Path(text).is_absolute():
            beside = folder / text
            try:
                if beside.exists() or (any(c in text for c in "*?[") and beside.parent.exists()):
                    return str(beside.resolve())
            except (OSError, ValueError):  # no path; what it is instead is found out later
                return text
        return text

    model = table.get("model")
    for key in ("base", "tuned", "adapter_base"):
        if isinstance(model, dict) and key in model:
            model[key] = resolved(model[key])
    site = table.setdefault("site", {})
    if isinstance(site, dict) and ("findings" in site or (folder / FINDINGS).is_dir()):
        site["findings"] = resolved(site.get("findings", FINDINGS))
    if isinstance(site, dict) and "words" in site:
        site["words"] = resolved(site["words"])
    corpus = table.get("corpus")
    sources = corpus.get("sources") if isinstance(corpus, dict) else None
    for source in sources if isinstance(sources, list) else ():
        if isinstance(source, dict) and "path" in source:
            source["path"] = resolved(source["path"])
