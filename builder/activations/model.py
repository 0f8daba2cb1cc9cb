"""The tuned model as the scan runs it: backbone without head, its decoder layers, its tokenizer.

A LoRA adapter is merged into its base after loading, so that the scan costs no more than a plain
model. Remote code is never run.
"""

from __future__ import annotations

import contextlib
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from builder.activations.tokens import DocumentTokenizer
from builder.config import ModelSettings, ScanSettings
from builder.errors import CheckpointError, ConfigError
from builder.weights.adapter import Adapter
from builder.weights.checkpoint import Checkpoint, has_tokenizer
from builder.weights.layout import decoder_layers
from builder.weights.pair import Finder, Side
from builder.weights.reasons import reason
from builder.weights.source import Place

#: The module of one expert, from its layer on.
_EXPERT = re.compile(r"(.*?\.\d+\.)(?:.+\.)?experts\.\d+\..+")
#: The setting of scan.device that spreads a model over all devices.
SPREAD = "spread"
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
    tuned = Finder(model).tuned()
    Checkpoint.at(tuned.whole)
    with _clear(model.tuned):
        _tokenizer(tuned)


def load_tokenizer(model: ModelSettings, settings: ScanSettings) -> DocumentTokenizer:
    """What makes documents into the tokens that :func:`load_model` of the same settings reads."""
    import transformers

    tuned = Finder(model).tuned()
    with _clear(model.tuned):
        config = transformers.AutoConfig.from_pretrained(
            tuned.whole.folder, trust_remote_code=False, local_files_only=True
        )
        tokenizer = _tokenizer(tuned)
    return DocumentTokenizer(
        tokenizer,
        min(settings.max_tokens, _context(config, settings)),
        long_documents=settings.long_documents,
        overlap=settings.overlap,
    )


def load_model(model: ModelSettings, settings: ScanSettings) -> ScannedModel:
    """The tuned model of a run, loaded for scanning.

    Raises CheckpointError when it cannot be loaded whole (a tensor that is missing would be made up
    at random) or holds NaN or infinity, ConfigError when the device does not exist.
    """
    return _scanned(Finder(model).tuned(), model.tuned, settings)


def load_base(model: ModelSettings, settings: ScanSettings) -> ScannedModel:
    """The base of a run's tuned model, to be read beside it; raises as :func:`load_model` does."""
    finder = Finder(model)
    base = finder.base(finder.tuned())
    return _scanned(base, model.base or str(base.whole.folder), settings)


def _scanned(side: Side, name: str, settings: ScanSettings) -> ScannedModel:
    device = _device(settings.device)
    dtype = _dtype(settings.dtype, device)
    spread = settings.device == SPREAD
    with _clear(name):
        if side.adapter is None:
            backbone = _loaded("AutoModel", side.whole, dtype, spread=spread)
        else:
            whole = _loaded("AutoModelForCausalLM", side.whole, dtype, spread=spread)
            backbone = _merged(whole, side.adapter)
        tokenizer = _tokenizer(side)
    for tensor, parameter in backbone.named_parameters():
        if parameter.is_meta:
            # What no device had room for is fetched from the files at every batch.
            continue
        bad = int((~torch.isfinite(parameter)).sum())
        if bad:
            raise CheckpointError(
                f"{name}: {tensor}: {bad} of {parameter.numel()} entries are NaN or infinite "
                f"as {str(dtype).removeprefix('torch.')}; the checkpoint is damaged, training "
                "diverged, or scan.dtype cannot hold it"
            )
    backbone.eval().requires_grad_(requires_grad=False)
    if not spread:
        try:
            backbone.to(device)
        except torch.OutOfMemoryError as error:
            raise ConfigError(
                f"{name}: the model does not fit on {device}; with several GPUs scan.device = "
                f"{SPREAD!r} spreads it over all of them"
            ) from error
    return ScannedModel(
        backbone=backbone,
        layers=tuple(decoder_layers(backbone)),
        tokenizer=tokenizer,
        device=device,
        context=_context(backbone.config, settings),
    )


def _context(config: Any, settings: ScanSettings) -> int:
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    return int(getattr(text, "max_position_embeddings", None) or settings.max_tokens)


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
    ) as error:
        raise CheckpointError(f"{name}: the model cannot be loaded: {reason(error)}") from error


def _loaded(loader: str, place: Place, dtype: torch.dtype, *, spread: bool) -> Any:
    """The model in a folder by a loader of transformers; raises ValueError if it is not whole.

    ``spread``: over all devices, as accelerate deals the layers out.
    """
    # transformers takes seconds to import; nothing but loading needs it.
    import transformers

    # Loading from a local folder is quick, its bar and its remarks on the dropped head are noise.
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    model, found = getattr(transformers, loader).from_pretrained(
        place.folder,
        dtype=dtype,
        device_map="auto" if spread else None,
        trust_remote_code=False,
        local_files_only=True,
        # Shapes that differ are ours to report.
        ignore_mismatched_sizes=True,
        output_loading_info=True,
    )
    # The head, where there is one, is not scanned, and some checkpoints leave out one that is tied.
    _complete(found, within="" if loader == "AutoModel" else f"{model.base_model_prefix}.")
    return model


def _merged(whole: Any, adapter: Adapter) -> Any:
    """The backbone of a model with an adapter merged into it; raises ValueError if not all of it.

    PEFT leaves out factors of modules that it does not find, or is not told of, without an error.
    """
    import peft

    with without_peft_warning():
        adapted = peft.PeftModel.from_pretrained(whole, str(adapter.folder), local_files_only=True)
        reached = {
            name.removeprefix("base_model.model.")
            for name, module in adapted.named_modules()
            if hasattr(module, "lora_A")
        }
        lost = [name for name in adapter.modules if not _is_reached(name, reached)]
        if lost:
            raise ValueError(
                f"PEFT does not apply its factors of {lost[0]} ({len(lost)} such modules): the "
                "model has no such module, or adapter_config.json does not target it; merge the "
                "adapter into its base and give the merged model"
            )
        merged: Any = adapted.merge_and_unload()
    return merged.base_model


def _is_reached(module: str, reached: set[str]) -> bool:
    """Whether a module is among those that PEFT changes, by their paths.

    Where transformers holds all experts of a layer in one module, PEFT changes that one.
    """
    if module in reached or not (expert := _EXPERT.fullmatch(module)):
        return module in reached
    return any(n.startswith(expert[1]) and n.endswith(".experts") for n in reached)


@contextlib.contextmanager
def without_peft_warning() -> Iterator[None]:
    """PEFT still asks transformers for a property under its old name, and fears for tied heads.

    The head is not scanned; what an adapter does to the embedding that it is tied to, is.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        warnings.filterwarnings("ignore", r"Model \w+ `tie_word_embeddings=True`", UserWarning)
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


def _tokenizer(tuned: Side) -> Any:
    """The tokenizer of the tuned model; that of its base where an adapter has none of its own."""
    import transformers

    folders = [place.folder for place in tuned.places]
    folder = next((folder for folder in folders if has_tokenizer(folder)), tuned.whole.folder)
    return transformers.AutoTokenizer.from_pretrained(
        folder, trust_remote_code=False, local_files_only=True
    )


def _device(name: str) -> torch.device:
    """The device of that name; of a model that is spread, the one that its input goes to."""
    if name in ("auto", SPREAD):
        if torch.cuda.is_available():
            return torch.device("cuda", torch.cuda.current_device())
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        if device.type == "meta":
            raise RuntimeError("it holds shapes and no numbers")
        # With its number, as tensors on it say it: "cuda" alone is not equal to "cuda:0".
        device = torch.empty(0, device=device).device
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ConfigError(f"scan.device: {name!r} cannot be used here: {error}") from error
    return device


def _dtype(name: str, device: torch.device) -> torch.dtype:
    if name == "auto":
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    return _DTYPES[name]
