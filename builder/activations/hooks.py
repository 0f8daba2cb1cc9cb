"""How is the residual stream seen? A forward hook on each decoder layer, gone on exit and error.

A hook reads the output of the layer (after its residual addition), never ``hidden_states[-1]``,
which is taken after the final norm.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import nn

from builder.errors import ScanError


@contextlib.contextmanager
def residual_hooks(
    layers: Sequence[nn.Module], wanted: Sequence[int], read: Callable[[int, torch.Tensor], None]
) -> Iterator[None]:
    """Calls ``read(layer, resid)`` with resid [batch, seq, d_model] after each wanted layer."""

    def hook_for(layer: int) -> Callable[[nn.Module, Any, Any], None]:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            resid = output[0] if isinstance(output, tuple) else output
            if not isinstance(resid, torch.Tensor) or resid.dim() != 3:
                raise ScanError(f"decoder layer {layer} gives no [batch, seq, d_model] tensor")
            read(layer, resid)

        return hook

    handles = []
    try:
        for layer in wanted:
            if layer >= len(layers):
                raise ScanError(
                    f"directions of layer {layer}, but the model has {len(layers)} decoder layers"
                )
            handles.append(layers[layer].register_forward_hook(hook_for(layer)))
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextlib.contextmanager
def first_layers(model: nn.Module, layers: Sequence[nn.Module], n: int) -> Iterator[None]:
    """Runs ``model`` without the decoder layers from ``n`` on, which nothing looks at."""
    found = [
        (parent, name)
        for parent in model.modules()
        for name, child in parent.named_children()
        if isinstance(child, nn.ModuleList) and list(child) == list(layers)
    ]
    if n >= len(layers) or len(found) != 1:
        yield  # nothing to leave out, or no place where that can be done
        return
    parent, name = found[0]
    whole = getattr(parent, name)
    try:
        setattr(parent, name, nn.ModuleList(layers[:n]))
        yield
    finally:
        setattr(parent, name, whole)
