"""What follows from a run's labels and the files beside them, brought up to date in its database.

Called before labels are made (a fault in ``labels.toml`` shows before anything is paid for), after
they were, and before pages are.
"""

from __future__ import annotations

from pathlib import Path

from builder.labels import by_hand, similar
from builder.labels.similar import Embedder


def refresh_labels(database: Path, embedder: Embedder | None = None) -> None:
    """Takes up the labels by hand that lie beside the database, then finds similar labels.

    Writes only what changed. Raises ConfigError for a fault in ``labels.toml``.
    """
    by_hand.refresh(database.parent, database)
    similar.refresh(database, embedder)
