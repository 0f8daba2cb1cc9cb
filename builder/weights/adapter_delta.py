"""What do LoRA adapters change in each matrix? Exact factors where both models are the same whole
model with adapters on it; else the difference of the whole models plus the adapters' products.

Factors keep their form: two tunes of one model differ by [L_t, -L_b] [R_t; R_b], which is never
multiplied out. What an adapter does not target counts as zero. A matrix in several parts (the
experts of a mixture) has one block of factors for each. Where a norm stands between a writer and
the residual stream, left factors go through its gain; see :mod:`builder.weights.delta`.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from builder.config import public_name
from builder.errors import CheckpointError
from builder.records import WRITERS, Hookpoint, ModelRef
from builder.weights.adapter import Adapter
from builder.weights.checkpoint import Checkpoint
from builder.weights.delta import CheckpointSource, WeightDelta, layout_facts, stored_dtype, whole
from builder.weights.infer import find_layout
from builder.weights.layout import Match, Part, match
from builder.weights.matrix import Digest, gain, matrix_shape, part_shape
from builder.weights.parts import NUMBER
from builder.weights.tensors import TensorFiles

#: Path components that wrap a language model and mean nothing else; "" ends every prefix.
_WRAPPERS = {"", "model", "base_model", "transformer", "language_model"}
#: Names of the module of an expert that writes; a part of this name must not go unseen.
_EXPERT_WRITERS = {"down_proj", "w2"}
#: Columns of a product that are made at a time.
_COLUMNS = 2048

_Block = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True, slots=True)
class Adapted:
    """A whole model, and the adapter on it if there is one."""

    checkpoint: Checkpoint
    adapter: Adapter | None = None

    @property
    def ref(self) -> ModelRef:
        """The name it goes by: the adapter's where there is one."""
        return self.checkpoint.ref if self.adapter is None else self.adapter.ref


class AdapterSource:
    """Differences between two models of which at least one is a LoRA adapter on a whole model.

    ``adapter`` is that of the tuned model. The same Checkpoint in both makes them exact factors.
    """

    def __init__(self, base: Adapted, tuned: Adapted) -> None:
        self.base: ModelRef | None = base.ref
        self.tuned = tuned.ref
        self.model = tuned.checkpoint
        self.adapter = tuned.adapter
        self._whole = (
            None
            if base.checkpoint is tuned.checkpoint
            else CheckpointSource(base.checkpoint, tuned.checkpoint)
        )
        self._tuned = _Products(tuned)
        self._base = _Products(base)
        self.match = self._tuned.match
        self.hookpoints = self._hookpoints()
        self.readers = tuple(place for place in self.match.readers() if self._differs(place))
        self.facts = self._facts()

    def delta(self, hookpoint: Hookpoint) -> WeightDelta:
        """diag(gain) (scale lora_B @ lora_A), tuned minus base, as factors; dense over two models.

        Factors of a reader in several parts are those of its transpose: only then do they stand
        side by side. Raises CheckpointError where factors do not fit the matrix they are for.
        """
        digest = Digest()
        if self._whole is None:
            tuned = self._tuned.factors(hookpoint, digest)
            base = self._base.factors(hookpoint, digest, minus=True)
            shape = matrix_shape(self.model, self.match, hookpoint)
            return WeightDelta(hookpoint, shape, digest.digest(), factors=_minus(tuned, base))
        difference = self._whole.delta(hookpoint)
        digest.word(difference.content.hex())
        tuned = self._tuned.factors(hookpoint, digest)
        base = self._base.factors(hookpoint, digest, minus=True)
        assert difference.dense is not None  # of two whole models
        dense = difference.dense.T if self._tuned.turned(hookpoint) else difference.dense
        _add(dense, tuned, 1.0)
        _add(dense, base, -1.0)
        return replace(difference, content=digest.digest())

    def base_weights(self, hookpoint: Hookpoint) -> WeightDelta | None:
        """diag(gain) W of the base, its adapter's part included, dense."""
        place = self._base.place(hookpoint)
        weights = whole(self._base.checkpoint, self._base.match, place)
        digest = Digest()
        digest.word(weights.content.hex())
        assert weights.dense is not None  # of a whole model
        _add(weights.dense, self._base.factors(hookpoint, digest), 1.0)
        return replace(weights, content=digest.digest())

    def stored_bytes(self, hookpoint: Hookpoint) -> int:
        """Bytes of the factors, and of the matrix in both models where these differ, by headers."""
        size = 0 if self._whole is None else self._whole.stored_bytes(hookpoint)
        return size + sum(side.stored_bytes(hookpoint) for side in self._adapted())

    def _hookpoints(self) -> tuple[Hookpoint, ...]:
        """The writers that differ: those that an adapter targets, all of two whole models."""
        found = tuple(place for place in self.match.hookpoints if self._differs(place))
        if not found:
            raise CheckpointError("; ".join(side.nothing() for side in self._adapted()))
        return found

    def _adapted(self) -> list[_Products]:
        return [side for side in (self._tuned, self._base) if side.adapter is not None]

    def _differs(self, hookpoint: Hookpoint) -> bool:
        return self._whole is not None or any(s.targets(hookpoint) for s in self._adapted())

    def _facts(self) -> dict[str, str]:
        first = self.hookpoints[0]
        facts = layout_facts(self.match.layout)
        if self._whole is not None:
            facts |= self._whole.facts
        facts["base_dtype"] = stored_dtype(
            self._base.checkpoint, self._base.match, self._base.place(first)
        )
        if self._tuned.adapter is not None:
            facts |= self._tuned.adapter.facts
        if self._base.adapter is not None:
            facts |= {f"base_{key}": text for key, text in self._base.adapter.facts.items()}
            if self._whole is None and self.adapter is not None:
                facts["compared"] = f"two tunes of {public_name(self.model.ref.path)}"
        untouched = set(WRITERS) - {hookpoint.writer for hookpoint in self.hookpoints}
        if untouched:
            facts["untouched_writers"] = ", ".join(sorted(untouched))
        return facts


class _Products:
    """What the adapter of one model adds to each matrix of its whole model; nothing without one."""

    def __init__(self, model: Adapted) -> None:
        self.checkpoint, self.adapter = model.checkpoint, model.adapter
        self.match = match(find_layout(model.checkpoint.config), model.checkpoint)
        self._places = {(h.layer, h.writer): h for h in self.match.matrices}
        self._modules: dict[Part, str] = {}
        if model.adapter is not None:
            self._modules = _modules(model.adapter, self.match)
            _check_copies(model.adapter, model.checkpoint, self.match)

    def place(self, hookpoint: Hookpoint) -> Hookpoint:
        """The same matrix in this whole model, which may name it otherwise."""
        return self._places[hookpoint.layer, hookpoint.writer]

    def turned(self, hookpoint: Hookpoint) -> bool:
        """Whether the parts of a matrix stand one above the other: a reader in several parts."""
        return hookpoint.writer not in WRITERS and len(self.match.parts(self.place(hookpoint))) > 1

    def targets(self, hookpoint: Hookpoint) -> bool:
        """Whether the adapter changes some part of a matrix."""
        return any(part in self._modules for part in self.match.parts(self.place(hookpoint)))

    def stored_bytes(self, hookpoint: Hookpoint) -> int:
        """Bytes of the factors that the adapter has for a matrix, by headers."""
        assert self.adapter is not None
        parts = self.match.parts(self.place(hookpoint))
        return sum(self.adapter.stored_bytes(self._modules[p]) for p in parts if p in self._modules)

    def nothing(self) -> str:
        """That the adapter targets no writer, what it does target, and what was looked for."""
        assert self.adapter is not None
        layout = self.match.layout
        wanted = [name for name in (layout.o_proj, layout.down_proj, *layout.mixture) if name]
        return (
            f"{self.adapter.ref}: targets {self.adapter.targets}, none of which writes to the "
            f"residual stream (looked for {' and '.join(wanted)} in the decoder layers); there is "
            "no direction to show"
        )

    def factors(
        self, hookpoint: Hookpoint, digest: Digest, *, minus: bool = False
    ) -> tuple[_Block, ...]:
        """(left [d_out, r], right [r, columns]) for each part, gain included; none without adapter.

        A part that is not targeted has r = 0. Of a matrix that is ``turned`` they are those of its
        transpose. ``minus`` goes into the digest only.
        """
        if self.adapter is None:
            return ()
        if minus:
            digest.word("minus")
        place = self.place(hookpoint)
        parts = self.match.parts(place)
        blocks = list(self._blocks(place, parts, digest, named=minus or len(parts) > 1))
        scale = gain(self.checkpoint, self.match, place, digest)
        if scale is not None:
            blocks = [(scale.double()[:, None] * left, right) for left, right in blocks]
        if self.turned(place):
            return tuple((right.T, left.T) for left, right in blocks)
        return tuple(blocks)

    def _blocks(
        self, place: Hookpoint, parts: tuple[Part, ...], digest: Digest, *, named: bool
    ) -> Iterator[_Block]:
        assert self.adapter is not None
        for index, part in enumerate(parts):
            rows, columns = part_shape(self.checkpoint, part)
            module = self._modules.get(part)
            if named:
                digest.word(f"{index}:{'' if module is None else 'factors'}")
            if module is None:
                empty = torch.zeros(rows, 0, dtype=torch.float64)
                yield empty, torch.zeros(0, columns, dtype=torch.float64)
                continue
            factors = self.adapter.factors(module)
            lora_b = factors.lora_b
            if part.rows is not None and lora_b.shape[0] >= part.rows[1]:
                lora_b = lora_b[slice(*part.rows)]
            if (lora_b.shape[0], factors.lora_a.shape[1]) != (rows, columns):
                raise CheckpointError(
                    f"{place.key}: base {[rows, columns]}, adapter "
                    f"{[factors.lora_b.shape[0], factors.lora_a.shape[1]]} ({module}); was the "
                    "adapter trained on this base?"
                )
            digest.tensor(factors.lora_a)
            digest.tensor(lora_b)
            digest.word(f"{factors.scale:.17g}")
            yield lora_b.double() * factors.scale, factors.right


def _minus(tuned: tuple[_Block, ...], base: tuple[_Block, ...]) -> tuple[_Block, ...]:
    """Factors of the difference of products, where no blocks are no product."""
    if not tuned:
        return tuple((-left, right) for left, right in base)
    if not base:
        return tuned
    return tuple(itertools.starmap(_one_minus, zip(tuned, base, strict=True)))


def _one_minus(tuned: _Block, base: _Block) -> _Block:
    if torch.equal(tuned[0], base[0]) and torch.equal(tuned[1], base[1]):
        return tuned[0][:, :0], tuned[1][:0]  # exactly nothing, which no rounding gives
    return torch.cat([tuned[0], -base[0]], dim=1), torch.cat([tuned[1], base[1]])


def _add(matrix: torch.Tensor, blocks: tuple[_Block, ...], sign: float) -> None:
    """Adds products side by side to a float32 matrix, in place, a few columns at a time."""
    column = 0
    for left, right in blocks:
        for start in range(0, right.shape[1] if left.shape[1] else 0, _COLUMNS):
            product = left @ right[:, start : start + _COLUMNS]
            place = column + start
            matrix[:, place : place + product.shape[1]] += (sign * product).float()
        column += right.shape[1]


def _modules(adapter: Adapter, found: Match) -> dict[Part, str]:
    """Part of a matrix to the adapter's module path, for the parts that the adapter targets.

    Raises CheckpointError for a module that writes to the stream of another base than this.
    """
    layers = found.layout.layers
    pattern = re.compile(rf"((?:.*\.)?){re.escape(layers)}\.{NUMBER}\.(.+)")
    # The adapter may have been trained on the bare or on the wrapped model: another prefix. A
    # vision tower has layers too, so the prefix must not lead to a place of its own.
    wrappers = _WRAPPERS | set(found.prefix.split("."))
    modules: dict[str, str] = {}
    for module in adapter.modules:
        hit = pattern.fullmatch(module)
        if hit is None or not set(hit[1].split(".")) <= wrappers:
            continue
        name = f"{layers}.{hit[2]}.{hit[3]}"
        if name in modules:
            raise CheckpointError(f"{adapter.ref}: both {modules[name]} and {module} are {name}")
        modules[name] = module
    parts = [part for place in found.matrices for part in found.parts(place)]
    targets = {part: modules[name] for part in parts if (name := _name(part, found)) in modules}
    writers = {_name(part, found) for place in found.hookpoints for part in found.parts(place)}
    leaves = {name.rpartition(".")[2] for name in writers}
    n_layers = 1 + max(place.layer for place in found.hookpoints)
    for name, module in modules.items():
        leaf = name.rpartition(".")[2]
        if int(name.removeprefix(f"{layers}.").partition(".")[0]) >= n_layers:
            why = f"the base has {n_layers} layers"
        elif name not in writers and (
            leaf in leaves or (".experts." in name and leaf in _EXPERT_WRITERS)
        ):
            why = "the base has no such matrix"
        else:
            continue
        raise CheckpointError(
            f"{adapter.ref}: targets {module}, but {why}; was the adapter trained on this base?"
        )
    return targets


def _check_copies(adapter: Adapter, base: Checkpoint, found: Match) -> None:
    """Raises CheckpointError for a copy of an (un)embedding that is not the base's.

    PEFT saves one beside the factors of every embedding or unembedding that is targeted. Where it
    was resized or trained, merging would not give what the factors say. Types may differ, values
    only by rounding.
    """
    layout = found.layout
    embed = f"{found.prefix}{layout.embed}.weight"
    head = next((name for name in found.heads() if name in base.tensors), embed)
    stored = {
        module.rpartition(".")[2]: name
        for module, name in ((layout.head, head), (layout.embed, embed))
    }
    for module, copy in adapter.copies.items():
        name = stored.get(module.rpartition(".")[2], "")
        if name not in base.tensors or not _alike(adapter.tensors, copy, base.tensors, name):
            raise CheckpointError(
                f"{adapter.ref}: holds {copy!r}, which is not the base's own; it was resized or "
                "retrained, or the adapter is of another base. Merge it into its base and give the "
                "merged model"
            )


def _alike(one: TensorFiles, copy: str, other: TensorFiles, name: str) -> bool:
    shape = one.shape(copy)
    if len(shape) != 2 or shape != other.shape(name):
        return False
    return all(
        torch.allclose(
            one.rows(copy, start, start + _COLUMNS),
            other.rows(name, start, start + _COLUMNS),
            rtol=2**-7,
            atol=1e-6,
        )
        for start in range(0, shape[0], _COLUMNS)
    )


def _name(part: Part, found: Match) -> str:
    """Module path of a part from the list of layers on; that of an expert as if it stood alone."""
    name = part.name.removeprefix(found.prefix).removesuffix(".weight")
    if part.expert is None:
        return name
    outer, _, leaf = name.rpartition(".")
    return f"{outer}.{part.expert}.{leaf}"
