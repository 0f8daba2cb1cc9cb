"""What does each module of a model add to what others give? One forward pass, watched.

Tensors are followed from the module that made them as long as nothing turns them, so that one can
tell which modules a block's output is the sum of. Works on the meta device: no number is looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode


@dataclass(eq=False)
class Call:
    """What went into and came out of one module.

    ``given`` and ``made`` are the writers whose sum that is, empty where it is something else;
    ``out`` is the tensor that came out, held so that its memory is not given to another.
    """

    order: int
    given: frozenset[str]
    made: frozenset[str]
    out: torch.Tensor | None


class _Flow(TorchDispatchMode):
    """Follows what modules give as long as it is only copied, added to its like, or scaled.

    A scale may differ by token, as a router's do, but not by channel: that would turn directions.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._sources: dict[int, frozenset[str]] = {}
        self._kept: list[Any] = []  # storages are told apart by address, so none may be reused

    def mark(self, tensor: torch.Tensor | None, source: str) -> None:
        """Says that a tensor is what one module gives."""
        self._set(tensor, frozenset([source]))

    def of(self, tensor: torch.Tensor | None) -> frozenset[str]:
        """The modules whose sum a tensor is."""
        return frozenset() if tensor is None else self._sources.get(storage(tensor), frozenset())

    def _set(self, tensor: torch.Tensor | None, sources: frozenset[str]) -> None:
        if tensor is not None:
            self._sources[storage(tensor)] = sources
            self._kept.append(tensor.untyped_storage())

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        first = args[0] if args and isinstance(args[0], torch.Tensor) else None
        if first is None or not isinstance(out, torch.Tensor):
            return out
        name = func.overloadpacket.__name__
        inplace = storage(out) == storage(first)
        if inplace and not name.endswith("_"):
            return out  # a view
        second = args[1] if len(args) > 1 else None
        sources = self.of(first)
        match name.rstrip("_"):
            case "clone" | "_to_copy":
                pass
            case "sum" if isinstance(second, (list, tuple)) and second:
                if {-1, first.ndim - 1} & set(second):  # a sum over channels is no direction
                    sources = frozenset()
            case "add" if isinstance(second, torch.Tensor):
                other = self.of(second)
                sources = sources | other if sources and other else frozenset()
            case "mul" | "div" if isinstance(second, torch.Tensor):
                if name.startswith("mul") and not sources:
                    first, second, sources = second, first, self.of(second)
                if second.ndim and second.shape[-1] != 1:
                    sources = frozenset()
            case "mul" | "div":
                pass
            case _:
                sources = frozenset()
        if sources or inplace:
            self._set(out, sources)
        return out


def watch(
    model: nn.Module, watched: Mapping[str, nn.Module], is_source: Callable[[nn.Module], bool]
) -> dict[str, Call]:
    """One forward pass of three tokens; the last call of every watched module by its name.

    ``is_source`` says whose outputs are followed.
    """
    calls: dict[str, Call] = {}
    flow = _Flow()
    handles = []
    for key, module in watched.items():

        def record(
            module: nn.Module,
            args: tuple[Any, ...],
            kwargs: dict[str, Any],
            out: Any,
            key: str = key,
        ) -> None:
            given = _first_tensor(args) if args else _first_tensor(list(kwargs.values()))
            made = _first_tensor(out)
            if is_source(module):
                flow.mark(made, key)
            calls[key] = Call(len(calls), flow.of(given), flow.of(made), made)

        handles.append(module.register_forward_hook(record, with_kwargs=True))
    try:
        ids = torch.zeros(1, 3, dtype=torch.long, device="meta")
        with torch.no_grad(), flow:
            # An explicit mask: without one, transformers looks into the (absent) positions.
            model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return calls


def inside(calls: Mapping[str, Call], outer: str) -> dict[str, Call]:
    """The calls of a layer, by names inside it; its own by the empty name."""

    def inner(names: frozenset[str]) -> frozenset[str]:
        return frozenset(name.removeprefix(f"{outer}.") for name in names)

    return {
        key.removeprefix(outer).removeprefix("."): replace(
            call, given=inner(call.given), made=inner(call.made)
        )
        for key, call in calls.items()
        if key == outer or key.startswith(f"{outer}.")
    }


def _first_tensor(value: Any) -> torch.Tensor | None:
    """The first tensor in nested sequences or a model output."""
    if isinstance(value, torch.Tensor):
        return value
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (tuple, list)):
        for item in value:
            if (tensor := _first_tensor(item)) is not None:
                return tensor
    return None


def storage(tensor: torch.Tensor) -> int:
    """The same number for a tensor and its views, another for every other tensor."""
    return int(tensor.untyped_storage()._cdata)
