"""How is a site cited? By a file in the Citation File Format, which hosts and tools read.

A direction is cited and quoted from its page, whose script copies it (static/copy.js).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

from builder import __version__
from builder.pages.formats import name_alone
from builder.pages.spans import plain
from builder.pages.views import RunView


def citation_cff(runs: Sequence[RunView], title: str, authors: Sequence[str], url: str) -> bytes:
    """The site in the Citation File Format 1.2.0, with its models as references.

    ``authors`` must not be empty: the format wants one.
    """
    references: list[dict[str, Any]] = []
    for run in runs:
        for model, revision in ((run.tuned, run.tuned_revision), (run.base, run.base_revision)):
            if not model:
                continue
            owner, slash, _ = model.partition("/")
            known = slash and name_alone(model) == model
            reference: dict[str, Any] = {
                "type": "generic",
                "title": plain(name_alone(model)),
                "authors": [{"name": plain(owner) if known else "unknown"}],
            }
            if revision:
                reference["commit"] = plain(revision)
            if reference not in references:
                references.append(reference)
    found: dict[str, Any] = {
        "cff-version": "1.2.0",
        "message": "If you use this atlas, please cite it, and the models that it is of.",
        "type": "dataset",
        "title": plain(title) or "weightatlas",
        "abstract": f"What fine-tuning wrote into the weights of {len(runs)} models, direction by "
        f"direction. Made with weightatlas {__version__}.",
        "authors": [{"name": plain(author)} for author in authors],
    }
    if url:
        found["url"] = url
    if references:
        found["references"] = references
    text: str = yaml.safe_dump(found, sort_keys=False, allow_unicode=False, width=1000)
    return text.encode("ascii")
