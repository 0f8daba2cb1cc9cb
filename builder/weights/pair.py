"""Which two models do the settings mean? The folders of both, and who named the base.

``tuned`` and ``base`` may each be a whole model or a LoRA adapter. An adapter goes on the model
that ``adapter_base`` gives; else, for ``tuned``, on a whole model that ``base`` gives; else on what
its configuration or its card names. Without ``base``, the base of an adapter is what it goes on,
and that of a whole model what its card names. Directions, scan and digests all ask here. Reads
configurations and cards; opens no weights but the headers of adapters.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from builder.config import HUB_ID, ModelSettings
from builder.errors import CheckpointError, ConfigError, shown
from builder.weights.adapter import Adapter, is_adapter
from builder.weights.card import base_of_card
from builder.weights.source import Place, fetch, locate

_SET = ", and setting model.base takes another"
GIVEN, BY_ADAPTER, BY_CARD = "given", "named by the adapter", "named by the model card"


@dataclass(frozen=True, slots=True)
class Side:
    """One model of a pair: ``whole``, a model's folder, with ``adapter`` on it if there is one.

    ``found`` says who named this model, ``whole_found`` who named what the adapter goes on.
    """

    whole: Place
    found: str = GIVEN
    adapter: Adapter | None = None
    whole_found: str = ""

    @property
    def places(self) -> tuple[Place, ...]:
        """What it is read from, the place that goes by its name first."""
        return (self.whole,) if self.adapter is None else (self.adapter.place, self.whole)


@dataclass(frozen=True, slots=True)
class Finder:
    """Finds the two models of settings; without ``ask_hub`` only what is on this machine."""

    model: ModelSettings
    ask_hub: bool = True

    def tuned(self) -> Side:
        """The tuned model. Raises ConfigError if it is an adapter whose base nothing names."""
        place = self._locate(self.model.tuned, self.model.tuned_revision)
        if not is_adapter(place.folder):
            return Side(place)
        adapter = Adapter.at(place)
        if not self.model.base:
            return self._on_its_base(adapter, self.model.base_revision)
        base = self._locate(self.model.base, self.model.base_revision)
        if self.model.adapter_base or is_adapter(base.folder):
            return self._on_its_base(adapter)
        return Side(base, GIVEN, adapter, GIVEN)

    def base(self, tuned: Side) -> Side:
        """What the tuned model is compared with. Raises ConfigError if nothing names it."""
        if not self.model.base and tuned.adapter is not None:
            return Side(tuned.whole, tuned.whole_found)
        if self.model.base:
            place, found = self._locate(self.model.base, self.model.base_revision), GIVEN
        else:
            place, found = self._named_by_card(tuned.whole), BY_CARD
        if is_adapter(place.folder):
            return replace(self._on_its_base(Adapter.at(place)), found=found)
        return Side(place, found)

    def _on_its_base(self, adapter: Adapter, revision: str | None = None) -> Side:
        """An adapter on ``adapter_base``, or on the model that it names, at a revision of it."""
        revision = self.model.adapter_base_revision or revision
        if self.model.adapter_base:
            whole = self._locate(self.model.adapter_base, self.model.adapter_base_revision)
            return Side(whole, GIVEN, adapter, GIVEN)
        if adapter.base:
            return Side(self._by_adapter(adapter, revision), GIVEN, adapter, BY_ADAPTER)
        try:
            named = base_of_card(adapter.place)
        except ConfigError as error:
            raise ConfigError(
                f"{adapter.ref.path}: is an adapter that names no base, and {error}; set "
                "model.base, or model.adapter_base where model.base is another tune"
            ) from error
        return Side(self._of_card(named, revision), GIVEN, adapter, BY_CARD)

    def _by_adapter(self, adapter: Adapter, revision: str | None) -> Place:
        """What an adapter's configuration names; a relative folder is meant from its own place.

        An adapter from the hub can name only what is on the hub. One that lies here was put here,
        and may name any folder: PEFT writes down where the base was.
        """
        pinned = revision or adapter.base_revision
        if adapter.place.revision is not None:
            if not HUB_ID.fullmatch(adapter.base):
                raise ConfigError(
                    f"{adapter.ref}: names {shown(adapter.base)!r} as its base, which is no hub "
                    "id; set model.base"
                )
            return fetch(adapter.base, pinned, ask_hub=self.ask_hub)
        if adapter.base.startswith("."):
            try:
                beside = (adapter.folder / adapter.base).resolve()
            except (OSError, ValueError, RuntimeError) as error:  # no path, or a loop of links
                raise CheckpointError(
                    f"{adapter.ref}: names {shown(adapter.base)!r} as its base, which cannot be "
                    f"looked up ({error}); set model.base"
                ) from error
            return self._locate(str(beside), revision)
        return self._locate(adapter.base, pinned)

    def _named_by_card(self, place: Place) -> Place:
        try:
            named = base_of_card(place)
        except ConfigError as error:
            raise ConfigError(
                f"{place.name}: model.base is needed for a weight difference, and {error}; set it "
                'to the model this was fine-tuned from, or directions.method = "raw" if that is '
                "not published"
            ) from error
        return self._of_card(named, self.model.base_revision)

    def _of_card(self, named: str | Path, revision: str | None) -> Place:
        try:
            if isinstance(named, Path):
                return self._locate(str(named), revision)
            return fetch(named, revision, ask_hub=self.ask_hub)
        except CheckpointError as error:
            raise CheckpointError(f"{error}; the model card names it as the base{_SET}") from error

    def _locate(self, source: str, revision: str | None) -> Place:
        return locate(source, revision, ask_hub=self.ask_hub)


def same(one: Place, other: Place) -> bool:
    """Whether two places are one folder; models of the hub are, at the same commit."""
    return one.folder.resolve() == other.folder.resolve()
