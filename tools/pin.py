"""Prints constraints.txt: the exact version of everything the project and its tests need.

Starts at the dependencies and extras that pyproject.toml declares, follows the requirements of
the distributions installed in the running environment, and pins what it meets. Local version
suffixes (``2.13.0+cpu``) are dropped, so that any build of the same release satisfies a pin.
Ends with an error when a declared dependency is not installed: a pin is never guessed.
"""

from __future__ import annotations

import sys
import tomllib
from collections import deque
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent

HEADER = """\
# Exact versions of what the project, its tests and its optional extras need, transitively, as they
# were tested together on Linux with Python 3.11. Other platforms install what their own markers
# ask for besides. A local build of the same release (torch 2.13.0+cpu, torch 2.13.0+cu130)
# satisfies its pin; the CUDA libraries are pinned by torch itself and are left to it.
#
# Made again, in an environment of its own and with the newest versions that pyproject.toml
# allows, by:
#
#     make constraints
"""


def declared() -> list[Requirement]:
    """Every requirement that pyproject.toml states: dependencies, all extras, the build system."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    texts = [*project["build-system"]["requires"], *project["project"]["dependencies"]]
    for extra in project["project"]["optional-dependencies"].values():
        texts += extra
    return [Requirement(text) for text in texts]


def closure(roots: list[Requirement]) -> dict[str, Distribution]:
    """The installed distributions that the requirements need, by canonical name.

    Raises PackageNotFoundError for a requirement that applies here and is not installed.
    """
    found: dict[str, Distribution] = {}
    seen: set[tuple[str, str]] = set()
    queue = deque((root, "") for root in roots)
    while queue:
        requirement, extra = queue.popleft()
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        for wanted in ("", *sorted(requirement.extras)):
            if (name, wanted) in seen:
                continue
            seen.add((name, wanted))
            found[name] = distribution(name)
            queue += ((Requirement(text), wanted) for text in found[name].requires or ())
    return found


def main() -> int:
    """0 when every pin was printed, 1 when something declared is not installed."""
    try:
        pins = closure(declared())
    except PackageNotFoundError as error:
        print(
            f"{error.name} is declared but not installed; run `make constraints`", file=sys.stderr
        )
        return 1
    print(HEADER)
    for name in sorted(pins):
        print(f"{name}=={Version(pins[name].version).public}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
