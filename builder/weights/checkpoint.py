"""What is in a model folder? Its configuration and its tensors, opened lazily.

The configuration is read by transformers with remote code off; weights are never loaded into a
model here. Nothing is decided about the architecture: that is ``layout``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, PretrainedConfig

from builder.errors import CheckpointError, shown
from builder.records import ModelRef
from builder.weights.reasons import reason
from builder.weights.source import Place, locate
from builder.weights.tensors import TensorFiles

#: A configuration that asks for more decoder layers is damaged or hostile.
MAX_LAYERS = 10_000
_CONFIG_LIMIT = 2**24
_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
)


class Checkpoint:
    """A full model: ``config`` (transformers), ``tensors``, and the ModelRef it goes by."""

    def __init__(self, place: Place, config: Any, tensors: TensorFiles) -> None:
        self.folder = place.folder
        self.ref = ModelRef(place.name, place.revision)
        self.config = config
        self.tensors = tensors

    @classmethod
    def open(cls, source: str, revision: str | None = None) -> Checkpoint:
        """The checkpoint of a local folder or hub id; reads no weights.

        Raises CheckpointError if it is no model folder, is quantized, or needs its own code.
        """
        return cls.at(locate(source, revision))

    @classmethod
    def at(cls, place: Place) -> Checkpoint:
        """The checkpoint in a folder that was located already."""
        config = _read_config(place)
        return cls(place, config, TensorFiles.open(place.folder))

    @property
    def text_config(self) -> Any:
        """The part of the configuration that describes the language model."""
        text = self.config.get_text_config(decoder=True)
        if not isinstance(text, PretrainedConfig):
            raise CheckpointError(
                f"{self.ref}: config.json describes its language model as {shown(repr(text))}, not "
                "as transformers does"
            )
        return text

    @property
    def model_type(self) -> str:
        """Architecture name of the language model, such as ``llama``."""
        return str(self.text_config.model_type)

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return self._size("hidden_size", 1_000_000)

    @property
    def n_layers(self) -> int:
        """Number of decoder layers."""
        return self._size("num_hidden_layers", MAX_LAYERS)

    @property
    def has_tokenizer(self) -> bool:
        """Whether the folder has a tokenizer's files."""
        return has_tokenizer(self.folder)

    def tensor(self, name: str) -> torch.Tensor:
        """One tensor as float32; raises CheckpointError if any entry is NaN or infinite."""
        return finite(self.tensors.raw(name), f"{self.ref}: {name}")

    def _size(self, key: str, limit: int) -> int:
        value = getattr(self.text_config, key, None)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= limit:
            raise CheckpointError(
                f"{self.ref}: config.json gives {key} = {value!r}; a decoder needs a whole number "
                f"from 1 to {limit}"
            )
        return value


def has_tokenizer(folder: Path) -> bool:
    """Whether a folder has a tokenizer's files."""
    return any((folder / name).is_file() for name in _TOKENIZER_FILES)


def finite(tensor: torch.Tensor, where: str) -> torch.Tensor:
    """The tensor as float32, checked; raises CheckpointError that counts NaN and infinity."""
    values = tensor.to(torch.float32)
    bad = int(values.numel() - torch.isfinite(values).sum())
    if bad:
        nan = int(torch.isnan(values).sum())
        raise CheckpointError(
            f"{where}: {bad} of {values.numel()} entries are not finite ({nan} NaN, {bad - nan} "
            "infinite); the checkpoint is damaged or training diverged"
        )
    return values


def not_finite(tensor: torch.Tensor) -> bool:
    """Whether any entry is NaN or infinite, without making anything of the tensor's size."""
    # A sum is finite only if every entry is, unless finite ones overflow: then they are looked at.
    total = tensor.sum(dtype=torch.float32)
    return not bool(torch.isfinite(total)) and not bool(torch.isfinite(tensor).all())


def _read_config(place: Place) -> Any:
    adapted = (place.folder / "adapter_config.json").is_file()
    if not (place.folder / "config.json").is_file():
        hint = "; it is an adapter, whose base has to be given as well" if adapted else ""
        raise CheckpointError(f"{place.name}: is not a model folder: it has no config.json{hint}")
    if adapted:
        # transformers would put the adapter on the model without a word; the weights alone would
        # then show another model than the one that is run.
        raise CheckpointError(
            f"{place.name}: holds a whole model and an adapter (adapter_config.json); move the "
            "adapter to a folder of its own, or take it away if it is merged already"
        )
    if (place.folder / "config.json").stat().st_size > _CONFIG_LIMIT:
        raise CheckpointError(f"{place.name}: config.json is too large for a configuration")
    try:
        config = AutoConfig.from_pretrained(str(place.folder), trust_remote_code=False)
    except (
        OSError,
        ValueError,
        TypeError,
        LookupError,
        ArithmeticError,
        AttributeError,
        RecursionError,
        StrictDataclassError,
    ) as error:
        raise CheckpointError(
            f"{place.name}: config.json is not of an architecture that the installed transformers "
            f"knows ({reason(error)}); code from a model's repository is never run"
        ) from error
    named = getattr(config, "architectures", None) or []
    if not isinstance(named, list) or not all(isinstance(name, str) for name in named):
        raise CheckpointError(
            f"{place.name}: config.json gives architectures = {shown(repr(named))}; a list of "
            "names was looked for"
        )
    for key in ("_attn_implementation", "_experts_implementation"):
        named = getattr(config, key, None)
        if isinstance(named, str) and "/" in named:  # transformers would fetch and run it
            raise CheckpointError(
                f"{place.name}: config.json asks for code from the hub ({key} = {shown(named)!r}), "
                "which is never run; remove that entry"
            )
    if getattr(config, "quantization_config", None):
        raise CheckpointError(
            f"{place.name}: is a quantized checkpoint; give the one it was made from"
        )
    if getattr(config, "is_encoder_decoder", False):
        raise CheckpointError(
            f"{place.name}: {config.model_type} is an encoder-decoder; only decoders can be read"
        )
    return config
