"""What does a PEFT LoRA folder add to which module? Its exact factors and their scale.

The weight difference of a module is ``scale * lora_B @ lora_A`` with scale alpha / r, or
alpha / sqrt(r) for rank-stabilized LoRA; it is never formed. Whatever an adapter does besides
(DoRA, retrained modules, biases, initializations that change the base) is refused by name, since
leaving it out would show another model than the one that was trained. Two things are left out, as
they change nothing that is written to the residual stream of the decoder: heads of a classifier or
reward model, and factors of the input embedding.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, Field, StrictBool, ValidationError

from builder.errors import CheckpointError, shown
from builder.records import ModelRef
from builder.weights.checkpoint import finite
from builder.weights.source import Place
from builder.weights.tensors import TensorFiles

_Number = TypeVar("_Number", int, float)

_CONFIG = "adapter_config.json"
_CONFIG_LIMIT = 2**24
_OUTER = r"(?:base_model\.model\.)?"
_FACTOR = re.compile(_OUTER + r"(.+)\.lora_([AB])(?:\.[^.]+)?\.weight")
_EMBEDDING = re.compile(_OUTER + r"(.+)\.lora_embedding_[AB](?:\.[^.]+)?")
#: What PEFT saves of a targeted embedding or unembedding besides: the base's own weight.
_COPY = re.compile(_OUTER + r"(.+)\.base_layer\.weight")
#: Heads that a classifier or reward model has in the place of the unembedding.
_OTHER_HEADS = frozenset({"score", "classifier", "qa_outputs", "v_head"})
_HEAD = re.compile(_OUTER + r"(?:.+\.)?(\w+)\.(?:weight|bias)")
#: Pattern keys that can be matched in bounded time: groups are not repeated, and little else is.
_SAFE_KEY = re.compile(r"[\w.\-^$|\\\[\]*+()]{1,200}")
_UNSAFE_KEY = re.compile(r"\)[*+]|\\\d")
#: Settings that change what the factors mean, and what they are called.
_REFUSED = {
    "use_dora": "DoRA",
    "use_qalora": "QA-LoRA",
    "use_bdlora": "block-diagonal LoRA",
    "trainable_token_indices": "retrained tokens (trainable_token_indices)",
    "target_parameters": "LoRA on bare parameters (target_parameters)",
    "layer_replication": "replicated layers",
    "lora_bias": "a bias in lora_B (lora_bias)",
    "alora_invocation_tokens": "activated LoRA",
    "arrow_config": "Arrow routing",
    "kasa_config": "KaSA",
    "monteclora_config": "MonteCLoRA",
    "velora_config": "VeLoRA",
    "megatron_config": "Megatron modules",
}
#: Initializations that leave the base weights as they are.
_INITS = (True, False, "gaussian", "eva", "orthogonal")


class _Config(BaseModel):
    """The part of ``adapter_config.json`` that says what the factors mean."""

    model_config = ConfigDict(extra="allow")

    peft_type: str
    r: int = Field(8, ge=1, le=1_000_000)
    lora_alpha: float = Field(8, ge=-1e6, le=1e6)
    use_rslora: StrictBool = False
    bias: str = "none"
    rank_pattern: dict[str, int] | None = None
    alpha_pattern: dict[str, Annotated[float, Field(ge=-1e6, le=1e6)]] | None = None
    modules_to_save: list[str] | None = None
    init_lora_weights: StrictBool | str = True
    base_model_name_or_path: str | None = None
    revision: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Factors:
    """``left`` = scale * lora_B [d_out, r], ``right`` = lora_A [r, d_in], float32.

    ``lora_a`` and ``lora_b`` are the tensors as stored, ``scale`` the factor between them.
    """

    lora_a: torch.Tensor
    lora_b: torch.Tensor
    scale: float

    @property
    def left(self) -> torch.Tensor:
        """Scaled lora_B, [d_out, r] float64; the scale is not rounded to float32."""
        return self.lora_b.double() * self.scale

    @property
    def right(self) -> torch.Tensor:
        """The factor lora_A, [r, d_in] float64."""
        return self.lora_a.double()


class Adapter:
    """A LoRA adapter: the modules it targets and the factors of each."""

    def __init__(self, place: Place, config: _Config, tensors: TensorFiles) -> None:
        self.place = place
        self.folder = place.folder
        self.ref = ModelRef(place.name, place.revision, kind="adapter")
        self.base = config.base_model_name_or_path or ""
        self.base_revision = config.revision
        self.tensors = tensors
        self._config = config
        self._names, self._copies, self._embeddings = _sorted(self.ref, tensors)

    @classmethod
    def at(cls, place: Place) -> Adapter:
        """The adapter in a folder that was located; reads no weights.

        Raises CheckpointError for what is no plain LoRA, naming it, and for a damaged folder.
        """
        config = _read_config(place)
        _refuse(place.name, config)
        return cls(place, config, TensorFiles.open(place.folder, "adapter_model"))

    @property
    def modules(self) -> tuple[str, ...]:
        """Paths of the modules it changes, without PEFT's prefix."""
        return tuple(self._names)

    @property
    def copies(self) -> dict[str, str]:
        """Modules whose base weight the adapter holds as well, to the name of its tensor."""
        return dict(self._copies)

    @property
    def targets(self) -> str:
        """Names of the modules it changes, without their places."""
        modules = (*self._names, *self._embeddings)
        return ", ".join(sorted({module.rpartition(".")[2] for module in modules})) or "nothing"

    @property
    def facts(self) -> dict[str, str]:
        """What a reader should know about it."""
        rule = "alpha / sqrt(r)" if self._config.use_rslora else "alpha / r"
        facts = {
            "adapter": f"LoRA, r = {self._config.r}, alpha = {self._config.lora_alpha:g}, "
            f"scale {rule}",
            "adapter_targets": self.targets,
        }
        if self._config.modules_to_save:
            facts["adapter_left_out"] = ", ".join(sorted(self._config.modules_to_save))
        return facts

    def stored_bytes(self, module: str) -> int:
        """Bytes that the factors of one module are stored in, by headers."""
        return sum(
            math.prod(self.tensors.shape(name)) * self.tensors.item_size(name)
            for name in self._names[module]
        )

    def factors(self, module: str) -> Factors:
        """The factors of one module; raises CheckpointError where they do not fit each other."""
        name_a, name_b = self._names[module]
        lora_a = self.tensors.raw(name_a)
        lora_b = self.tensors.raw(name_b)
        rank = _by_pattern(self.ref, self._config.rank_pattern, module, self._config.r)
        if lora_a.ndim != 2 or lora_b.ndim != 2 or not lora_a.shape[0] == lora_b.shape[1] == rank:
            raise CheckpointError(
                f"{self.ref}: {module}: lora_A {list(lora_a.shape)}, lora_B {list(lora_b.shape)}, "
                f"but adapter_config.json gives r = {rank}"
            )
        alpha = _by_pattern(
            self.ref, self._config.alpha_pattern, module, float(self._config.lora_alpha)
        )
        scale = alpha / (rank**0.5 if self._config.use_rslora else rank)
        finite(lora_a, f"{self.ref}: {name_a}")
        finite(lora_b, f"{self.ref}: {name_b}")
        largest = abs(scale) * float(lora_a.double().norm()) * float(lora_b.double().norm())
        if largest > torch.finfo(torch.float32).max:
            raise CheckpointError(
                f"{self.ref}: {module}: the product of its factors is too large for a weight "
                f"({largest:.1e}); the adapter is damaged or training diverged"
            )
        return Factors(lora_a, lora_b, scale)


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter rather than a whole model (which may keep one beside)."""
    whole = [*folder.glob("model*.safetensors"), *folder.glob("pytorch_model*.bin")]
    return (folder / _CONFIG).is_file() and not whole


def _read_config(place: Place) -> _Config:
    path = place.folder / _CONFIG
    try:
        if path.stat().st_size > _CONFIG_LIMIT:
            raise CheckpointError(f"{place.name}: {_CONFIG} is too large for a configuration")
        return _Config.model_validate_json(path.read_bytes())
    except OSError as error:
        raise CheckpointError(f"{place.name}: {_CONFIG} cannot be read: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise CheckpointError(f"{place.name}: {_CONFIG}: {where}: {first['msg']}") from error


def _refuse(name: str, config: _Config) -> None:
    if config.peft_type.upper() != "LORA":
        raise CheckpointError(
            f"{name}: is a {shown(config.peft_type)} adapter; only LORA can be read. Merge it into "
            "its base and give the merged model"
        )
    extra: dict[str, Any] = config.model_extra or {}
    present = [title for key, title in _REFUSED.items() if extra.get(key)]
    saved = sorted(name for name in config.modules_to_save or () if name not in _OTHER_HEADS)
    if saved:
        present.append(f"retrained modules (modules_to_save: {shown(', '.join(saved))})")
    if config.bias != "none":
        present.append(f"trained biases (bias = {shown(config.bias)!r})")
    if config.init_lora_weights not in _INITS:
        present.append(
            f"an initialization that changes the base ({shown(str(config.init_lora_weights))})"
        )
    if present:
        raise CheckpointError(
            f"{name}: the adapter uses {', '.join(present)}, which its factors alone do not show. "
            "Merge it into its base and give the merged model"
        )


def _sorted(
    ref: ModelRef, tensors: TensorFiles
) -> tuple[dict[str, tuple[str, str]], dict[str, str], set[str]]:
    """Modules to the names of lora_A and lora_B, of copies of base weights; embedding modules.

    Raises CheckpointError for whatever else is there.
    """
    sides: dict[str, dict[str, str]] = {}
    copies: dict[str, str] = {}
    embeddings: set[str] = set()
    others: list[str] = []
    for name in tensors:
        if hit := _FACTOR.fullmatch(name):
            other = sides.setdefault(hit[1], {}).setdefault(hit[2], name)
            if other != name:
                raise CheckpointError(
                    f"{ref}: holds both {other!r} and {name!r}; one adapter was looked for"
                )
        elif hit := _EMBEDDING.fullmatch(name):
            embeddings.add(hit[1])
        elif hit := _COPY.fullmatch(name):
            copies[hit[1]] = name
        elif not ((hit := _HEAD.fullmatch(name)) and hit[1] in _OTHER_HEADS):
            others.append(name)
    if others:
        raise CheckpointError(
            f"{ref}: holds {shown(others[0])!r}, which is no LoRA factor ({len(others)} such "
            "tensors); merge the adapter into its base and give the merged model"
        )
    for module, names in sides.items():
        if set(names) != {"A", "B"}:
            raise CheckpointError(f"{ref}: {module} has lora_{'/'.join(names)} only")
    return {m: (names["A"], names["B"]) for m, names in sides.items()}, copies, embeddings


def _by_pattern(
    ref: ModelRef, pattern: Mapping[str, _Number] | None, module: str, default: _Number
) -> _Number:
    """The value of the first pattern key that matches the end of a module path, as PEFT does."""
    for key, value in (pattern or {}).items():
        if not _is_safe(key):
            raise CheckpointError(
                f"{ref}: {_CONFIG}: {shown(key)!r} is no pattern of a module name that can be used"
            )
        try:
            hit = re.match(rf"(.*\.)?({key})$", module)
        except re.error as error:
            raise CheckpointError(f"{ref}: {_CONFIG}: bad pattern {key!r}: {error}") from error
        if hit:
            return value
    return default


def _is_safe(key: str) -> bool:
    plain = _SAFE_KEY.fullmatch(key) and not _UNSAFE_KEY.search(key)
    return bool(plain) and len(re.findall(r"[*+]", key)) <= 2
