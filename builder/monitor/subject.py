"""What was a monitor made for? The directions, the weights, the tokenizer and the chat template.

Ranges mean nothing for another model, and a conversation has other tokens or roles under another
tokenizer or template; so a monitor says what it was made for, and is refused for anything else.
Weights are compared by evenly spaced entries of every tensor, rounded to bfloat16: the same
whatever precision the model is loaded in, quick at any size, and different after the lightest
tuning of a tensor. Few entries may differ, since merging an adapter rounds otherwise elsewhere.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from builder.activations.model import ScannedModel
from builder.errors import MonitorError
from builder.records import DirectionSet

#: Entries of each tensor that are compared.
SAMPLED = 64
#: As many of them may differ.
_MAY_DIFFER = SAMPLED // 16


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """``directions`` are their ids with content hashes, ``tensors`` the names with the shapes.

    ``entries`` uint16 [tensors, SAMPLED] are the bits of sampled entries as bfloat16; ``tokenizer``
    and ``template`` are digests.
    """

    directions: tuple[str, ...]
    tensors: tuple[str, ...]
    entries: npt.NDArray[np.uint16]
    tokenizer: str
    template: str

    def check(self, other: Subject) -> None:
        """Raises MonitorError if ``other`` is not what the monitor was made for, saying why."""
        if self.directions != other.directions:
            raise MonitorError(
                f"the monitor was made for {_count(self.directions)}, "
                f"these are {_count(other.directions)}, and they are not the same; calibrate anew"
            )
        if self.tensors != other.tensors:
            own, found = set(self.tensors), set(other.tensors)
            what = min(own ^ found) if own ^ found else "their order"
            raise MonitorError(
                f"the monitor was made for another model: they differ in {what}; calibrate anew"
            )
        differ = (self.entries != other.entries).sum(axis=1)
        if (differ > _MAY_DIFFER).any():
            name = self.tensors[int(differ.argmax())]
            raise MonitorError(
                f"the monitor was made for other weights: {int(differ.max())} of {SAMPLED} entries "
                f"that were compared of {name} differ; calibrate anew"
            )
        for what in ("tokenizer", "template"):
            if getattr(self, what) != getattr(other, what):
                told = "chat template" if what == "template" else what
                raise MonitorError(
                    f"the monitor was made for another {told}, under which conversations are read "
                    "otherwise; calibrate anew"
                )


def subject_of(model: ScannedModel, directions: DirectionSet) -> Subject:
    """What a monitor of these directions of a loaded model is made for."""
    names, entries = [], []
    for name, parameter in sorted(model.backbone.named_parameters()):
        names.append(f"{name} {list(parameter.shape)}")
        entries.append(_sample(parameter))
    tokenizer = model.tokenizer
    template = getattr(tokenizer, "chat_template", None)
    return Subject(
        directions=tuple(f"{one.id} {one.content_hash}" for one in directions.directions),
        tensors=tuple(names),
        entries=np.stack(entries) if entries else np.zeros((0, SAMPLED), dtype=np.uint16),
        tokenizer=_digest(tokenizer.backend_tokenizer.to_str()),
        template=_digest(json.dumps(template, sort_keys=True)),
    )


def _sample(parameter: torch.Tensor) -> npt.NDArray[np.uint16]:
    """The bits of evenly spaced entries as bfloat16; of a small tensor some more than once."""
    flat = parameter.detach().reshape(-1)
    places = torch.linspace(0, len(flat) - 1, SAMPLED, dtype=torch.float64, device=flat.device)
    chosen = flat[places.long()].to(torch.bfloat16).cpu()
    bits: npt.NDArray[np.uint16] = chosen.view(torch.int16).numpy().view(np.uint16)
    return bits


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _count(directions: tuple[str, ...]) -> str:
    return f"{len(directions):,} direction{'' if len(directions) == 1 else 's'}"
