"""Texts of which sources are shown on a click only? Those that the settings of the site name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache

#: From the name of a source to whether its texts stand behind a click.
Veiled = Callable[[str], bool]


def veiled_by(patterns: Sequence[str]) -> Veiled:
    """Whether a source is one of these names or fits one of these patterns (``Chat*``)."""

    @lru_cache(maxsize=4096)
    def is_veiled(source: str) -> bool:
        return any(fnmatchcase(source, pattern) for pattern in patterns)

    return is_veiled


def veiled_places(sources: Sequence[str], veiled: Veiled) -> dict[str, list[int]]:
    """What a header of packed texts says of its sources; nothing where none is veiled."""
    places = [at for at, source in enumerate(sources) if veiled(source)]
    return {"veiled": places} if places else {}
