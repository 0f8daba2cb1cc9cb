"""Which base does a model's card name? ``base_model`` in the YAML at the top of its README.md.

Whoever published the model wrote the card, so little of it is believed. At most the first half
mebibyte is read; the YAML is only parsed into nodes, from which no values are made, so that neither
merge keys nor aliases can make it grow. What a card names is a hub id, and nothing under that name
on this machine is meant by it; or, in a card that lies on this machine, a folder beside the model's
or inside it, written with a leading dot.
"""

from __future__ import annotations

from pathlib import Path

import yaml
from huggingface_hub.repocard import REGEX_YAML_BLOCK

from builder.config import HUB_ID
from builder.errors import ConfigError, shown
from builder.weights.source import Place

_CARD = "README.md"
_LIMIT = 2**19
#: Relations of ``base_model_relation`` in which a difference of weights is not what was trained.
_UNFIT = {
    "quantized": "is a quantization of it, not a fine-tune",
    "merge": "is a merge into it, not a fine-tune",
}


def base_of_card(place: Place) -> str | Path:
    """The base that a model's card names: a hub id, or a folder on this machine.

    Raises ConfigError with a clause that says what is wrong if there is no card, it cannot be read,
    it names no base or several, or it says that the model is no fine-tune of it.
    """
    nodes = _top(place)
    named = [name for name in _words(nodes, "base_model") if name]
    if not named:
        raise ConfigError(f"its {_CARD} names no base_model")
    if len(named) > 1:
        listed = ", ".join(shown(name) for name in named[:10])
        raise ConfigError(f"its {_CARD} names {len(named)} base models ({listed})")
    for relation in _words(nodes, "base_model_relation"):
        if relation.lower() in _UNFIT:
            raise ConfigError(
                f"its {_CARD} names {shown(named[0])}, but says that it {_UNFIT[relation.lower()]}"
            )
    return _meant(place, named[0])


def _meant(place: Place, name: str) -> str | Path:
    """The hub id or folder that a name in a card stands for; the name may be hostile."""
    if name.startswith(".") and place.revision is None:
        folder = place.folder.resolve()
        try:
            beside = (folder / name).resolve()
            inside = beside.is_dir() and beside.is_relative_to(folder.parent)
        except (OSError, ValueError, RuntimeError):  # no path, or a loop of links
            inside = False
        if inside and beside not in (folder, folder.parent):
            return beside
    elif HUB_ID.fullmatch(name):
        return name
    raise ConfigError(
        f"its {_CARD} names {shown(name)!r}, which is neither a hub id nor a folder beside it"
    )


def _top(place: Place) -> dict[str, yaml.Node]:
    """The top entries of a card's YAML as nodes; none if it has no YAML."""
    path = place.folder / _CARD
    if not path.is_file():
        raise ConfigError(f"the model has no {_CARD} that could name one")
    try:
        text = _beginning(path).decode("utf-8-sig", errors="replace")
        block = REGEX_YAML_BLOCK.search(text)
        node = yaml.compose(block[2], Loader=yaml.SafeLoader) if block else None
    except (OSError, ValueError, LookupError, RecursionError, yaml.YAMLError) as error:
        raise ConfigError(f"its {_CARD} cannot be read ({type(error).__name__})") from error
    if not isinstance(node, yaml.MappingNode):
        return {}
    return {key.value: value for key, value in node.value if isinstance(key, yaml.ScalarNode)}


def _beginning(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(_LIMIT)


def _words(nodes: dict[str, yaml.Node], key: str) -> list[str]:
    """The text under a key: one word, or those of a list, each once."""
    node = nodes.get(key)
    entries = node.value if isinstance(node, yaml.SequenceNode) else [node] if node else []
    if not all(isinstance(entry, yaml.ScalarNode) for entry in entries):
        raise ConfigError(f"what its {_CARD} gives as {key} is no name")
    return list(dict.fromkeys(_word(entry) for entry in entries))


def _word(entry: yaml.ScalarNode) -> str:
    return "" if entry.tag.endswith(":null") else str(entry.value).strip()
