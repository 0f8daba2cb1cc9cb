"""The tuned model as the scan runs it: backbone without head, its decoder layers, its tokenizer.

A LoRA adapter is merged into its base after loading, so that the scan costs no more than a plain
model. Remote code is never run.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from builder.config import ModelSettings, ScanSettings
from builder.errors import CheckpointError, ConfigError
from builder.weights.adapter import Adapter, adapter_base, is_adapter
from builder.weights.checkpoint import Checkpoint, has_tokenizer
from builder.weights.layout import decoder_layers
from builder.weights.reasons import reason
from builder.weights.source import Place, locate

_LOADING = (
    OSError,
    ValueError,
    TypeError,
    RuntimeError,
    KeyError,
    ImportError,
    AttributeError,
    ArithmeticError,
)
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, slots=True)
class ScannedModel:
    """A model in evaluation mode on its device.

    ``backbone(input_ids=...)`` runs the decoder without the language-model head; ``layers`` are
    its decoder layers in order; ``context`` is the longest input in tokens.
    """

    backbone: nn.Module
    layers: tuple[nn.Module, ...]
    tokenizer: Any
    device: torch.device
    context: int


def check_model(model: ModelSettings, settings: ScanSettings) -> None:
    """Finds what would keep a model from being scanned, as far as can be told without its weights.

    A hub id is not looked at, only the device is. Raises as :func:`load_model` does.
    """
    _device(settings.device)
    if not Path(model.tuned).expanduser().exists():
        return
    tuned = locate(model.tuned, model.tuned_revision)
    base = _base(model, tuned)
    Checkpoint.at(base or tuned)
    with _clear(model.tuned):
        _tokenizer(tuned.folder if base is None or has_tokenizer(tuned.folder) else base.folder)


def load_model(model: ModelSettings, settings: ScanSettings) -> ScannedModel:
    """The tuned model of a run, loaded for scanning.

    Raises CheckpointError when it cannot be loaded whole (a tensor that is missing would be made up
    at random) or holds NaN or infinity, ConfigError when the device does not exist.
    """
    device = _device(settings.device)
    dtype = _dtype(settings.dtype, device)
    tuned = locate(model.tuned, model.tuned_revision)
    base = _base(model, tuned)
    with _clear(model.tuned):
        if base is not None:
            backbone, tokenizer = _load_adapter(base.folder, tuned.folder, dtype)
        else:
            backbone, tokenizer = _load_checkpoint(tuned.folder, dtype)
    for name, parameter in backbone.named_parameters():
        bad = int((~torch.isfinite(parameter)).sum())
        if bad:
            raise CheckpointError(
                f"{model.tuned}: {name}: {bad} of {parameter.numel()} entries are NaN or infinite "
                f"as {str(dtype).removeprefix('torch.')}; the checkpoint is damaged, training "
                "diverged, or scan.dtype cannot hold it"
            )
    backbone.eval().requires_grad_(requires_grad=False)
    backbone.to(device)
    config = backbone.config
    text_config = config.get_text_config() if hasattr(config, "get_text_config") else config
    context = getattr(text_config, "max_position_embeddings", None) or settings.max_tokens
    return ScannedModel(
        backbone=backbone,
        layers=tuple(decoder_layers(backbone)),
        tokenizer=tokenizer,
        device=device,
        context=int(context),
    )


def _base(model: ModelSettings, tuned: Place) -> Place | None:
    """Where the base of an adapter is; None if ``tuned`` is a whole model."""
    return adapter_base(model, Adapter.at(tuned)) if is_adapter(tuned.folder) else None


@contextlib.contextmanager
def _clear(name: str) -> Iterator[None]:
    """Turns what the libraries raise about a model's files into one CheckpointError."""
    try:
        yield
    except (
        OSError,
        ValueError,
        TypeError,
        RuntimeError,
        KeyError,
        ImportError,
        AttributeError,
    ) as e:
        raise CheckpointError(f"{name}: the model cannot be loaded: {reason(e)}") from e


def _load_checkpoint(folder: Path, dtype: torch.dtype) -> tuple[Any, Any]:
    # transformers takes seconds to import; nothing but loading needs it.
    import transformers

    _quiet(transformers)
    backbone, found = cast(Any, transformers.AutoModel).from_pretrained(
        folder,
        dtype=dtype,
        trust_remote_code=False,
        local_files_only=True,
        # Shapes that differ are ours to report.
        ignore_mismatched_sizes=True,
        output_loading_info=True,
    )
    _complete(found)
    return backbone, _tokenizer(folder)


def _load_adapter(base: Path, adapter: Path, dtype: torch.dtype) -> tuple[Any, Any]:
    import peft
    import transformers

    _quiet(transformers)
    whole, found = cast(Any, transformers.AutoModelForCausalLM).from_pretrained(
        base,
        dtype=dtype,
        trust_remote_code=False,
        local_files_only=True,
        # Shapes that differ are ours to report.
        ignore_mismatched_sizes=True,
        output_loading_info=True,
    )
    # The head is not scanned, and some checkpoints leave out one that is tied.
    _complete(found, within=f"{whole.base_model_prefix}.")
    with without_peft_warning():
        adapted = peft.PeftModel.from_pretrained(whole, str(adapter), local_files_only=True)
        merged: Any = adapted.merge_and_unload()
    return merged.base_model, _tokenizer(adapter if has_tokenizer(adapter) else base)


@contextlib.contextmanager
def without_peft_warning() -> Iterator[None]:
    """PEFT still asks transformers for a property under its old name."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        yield


def _complete(found: Mapping[str, Any], within: str = "") -> None:
    """Raises ValueError if a tensor of the model was not in the files, or of another shape."""
    missing = sorted(name for name in found["missing_keys"] if name.startswith(within))
    if missing:
        shown = ", ".join(missing[:3]) + (" ..." if len(missing) > 3 else "")
        raise ValueError(
            f"{len(missing)} of its tensors are not in its files under the names that "
            f"transformers looks for: {shown}"
        )
    for name, *shapes in sorted(found["mismatched_keys"]):
        stored, wanted = (list(shape) for shape in shapes)
        raise ValueError(f"{name} is {stored} in its files and {wanted} by its config.json")


def _quiet(transformers: Any) -> None:
    # Loading from a local folder is quick, its bar and its remarks on the dropped head are noise.
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()


def _tokenizer(folder: Path) -> Any:
    import transformers

    return transformers.AutoTokenizer.from_pretrained(
        folder, trust_remote_code=False, local_files_only=True
    )


def _device(name: str) -> torch.device:
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        if device.type == "meta":
            raise RuntimeError("it holds shapes and no numbers")
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ConfigError(f"scan.device: {name!r} cannot be used here: {error}") from error
    return device


def _dtype(name: str, device: torch.device) -> torch.dtype:
    if name == "auto":
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    return _DTYPES[name]
