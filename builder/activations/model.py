"""The tuned model as the scan runs it: backbone without head, its decoder layers, its tokenizer.

A LoRA adapter is merged into its base after loading, so that the scan costs no more than a plain
model. Remote code is never run.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from builder.config import ModelSettings, ScanSettings
from builder.errors import CheckpointError, ConfigError
from builder.weights.layout import decoder_layers
from builder.weights.source import locate

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


def load_model(model: ModelSettings, settings: ScanSettings) -> ScannedModel:
    """The tuned model of a run, loaded for scanning.

    Raises CheckpointError when it cannot be loaded, ConfigError when the device does not exist.
    """
    device = _device(settings.device)
    dtype = _dtype(settings.dtype, device)
    tuned = locate(model.tuned, model.tuned_revision).folder
    try:
        if (tuned / "adapter_config.json").is_file():
            base = locate(model.base, model.base_revision).folder
            backbone, tokenizer = _load_adapter(base, tuned, dtype)
        else:
            backbone, tokenizer = _load_checkpoint(tuned, dtype)
    except (OSError, ValueError, RuntimeError, KeyError, ImportError) as error:
        raise CheckpointError(f"{model.tuned}: the model cannot be loaded: {error}") from error
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


def _load_checkpoint(folder: Path, dtype: torch.dtype) -> tuple[Any, Any]:
    # transformers takes seconds to import; nothing but loading needs it.
    import transformers

    # Loading from a local folder is quick, its bar and its remarks on the dropped head are noise.
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    backbone = transformers.AutoModel.from_pretrained(
        folder, dtype=dtype, trust_remote_code=False, local_files_only=True
    )
    return backbone, _tokenizer(folder)


def _load_adapter(base: Path, adapter: Path, dtype: torch.dtype) -> tuple[Any, Any]:
    import peft
    import transformers

    transformers.utils.logging.disable_progress_bar()
    whole = transformers.AutoModelForCausalLM.from_pretrained(
        base, dtype=dtype, trust_remote_code=False, local_files_only=True
    )
    adapted = peft.PeftModel.from_pretrained(whole, str(adapter), local_files_only=True)
    merged: Any = adapted.merge_and_unload()
    own_tokenizer = (adapter / "tokenizer.json").is_file()
    return merged.base_model, _tokenizer(adapter if own_tokenizer else base)


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
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"scan.device: {name!r} cannot be used here: {error}") from error
    return device


def _dtype(name: str, device: torch.device) -> torch.dtype:
    if name == "auto":
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    return _DTYPES[name]
