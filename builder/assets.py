"""Where are the templates and the static files? In the wheel inside the package, else beside it.

A wheel carries them as ``builder/assets/templates`` and ``builder/assets/static``; a source
checkout keeps ``templates/`` and ``static/`` beside the package. Nothing else knows about this.
"""

from __future__ import annotations

from pathlib import Path

from builder.errors import SiteError

#: What an asset folder holds.
PARTS: tuple[str, ...] = ("templates", "static")


def asset_dir(package: Path | None = None) -> Path:
    """The folder that holds ``templates/`` and ``static/``.

    ``package`` is the folder of the ``builder`` package when it is not this one. The copy inside
    the package goes first: the folder beside an installed package is shared with strangers.
    Raises SiteError, with both places named, when neither has them.
    """
    package = Path(__file__).resolve().parent if package is None else package
    candidates = (package / "assets", package.parent)
    for folder in candidates:
        if all((folder / part).is_dir() for part in PARTS):
            return folder
    looked = " nor ".join(str(folder) for folder in candidates)
    raise SiteError(
        f"no templates/ and static/ in {looked}; the installation is incomplete, "
        "install weightatlas again"
    )
