"""What is a direction's page made of? A short name for all of it, so that no page is made twice.

Everything that a page shows goes in: this program, the settings, what is said of the whole run, the
direction itself, what is said of those it links to, and by a hash of the database's rows the
examples, histograms and judged texts. Two pages with one name are the same to the byte.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from builder import __version__
from builder.assets import asset_dir
from builder.config import SiteSettings
from builder.pages.label_view import PoleView
from builder.pages.nearby import NearView
from builder.pages.similar_view import SimilarView
from builder.pages.views import DirectionView, RunView
from builder.store import RunStore


def program() -> str:
    """A hash of the code and the templates that pages are made with."""
    digest = hashlib.sha256(__version__.encode())
    package = Path(__file__).resolve().parent.parent
    places = [*package.rglob("*.py"), *(asset_dir() / "templates").rglob("*.html")]
    for path in sorted(places):
        digest.update(path.name.encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


class MadeOf:
    """Names for the pages of one run's directions."""

    def __init__(
        self,
        run: RunView,
        store: RunStore,
        settings: SiteSettings,
        program: str,
        has_findings: bool,
        compare: str,
    ) -> None:
        self._run = run
        whole = (
            program,
            settings.title,
            settings.url,
            settings.authors,
            has_findings,
            compare,
            settings.examples,
            settings.context,
            settings.blur,
            run.name,
            run.title,
            run.base,
            run.tuned,
            run.base_revision,
            run.tuned_revision,
            run.method,
            run.n_layers,
            run.d_model,
            len(run.own),
            sorted(run.corpus.items(), key=lambda pair: pair[0]),
            run.versions,
            run.document_shares(),
            sorted(run.control_scores.items()),
            store.reservoir_digest(),
            [item.name for item in run.directions],
        )
        self._whole = hashlib.sha256(repr(whole).encode("utf-8", "surrogatepass")).digest()
        self._rows = store.digests()
        self._links = {
            (i.row.hookpoint.layer, i.row.hookpoint.writer, i.row.rank): i.link
            for i in run.directions
        }
        self._spectra = {
            (s.hookpoint.layer, s.hookpoint.writer): (s.shuffled_floor, s.rounding_floor, s.space)
            for s in run.spectra
        }

    def of(
        self,
        item: DirectionView,
        near: NearView,
        alike: SimilarView,
        beside: Sequence[DirectionView | None],
        findings: Sequence[object],
    ) -> str:
        """That of one direction with what its page links to; 16 hex digits."""
        place = item.row.hookpoint
        parts = (
            item,
            self._rows.get(item.row.id),
            self._spectra.get((place.layer, place.writer)),
            [
                (row.run.title, row.item.page, row.item.row.id, row.cosine, row.by_chance,
                 row.compared,                 _poles(row.item))
                for row in (*near.own, *near.others)
            ],
            (near.chance, [(run.title, run.page, n, floor) for run, n, floor in near.without]),
            alike.by,
            [
                (pole, row.item.page, row.similarity, _said(row.pole), row.item.is_control)
                for pole, rows in alike.rows.items()
                for row in rows
            ],
            [(other.row.id, other.link) if other else None for other in beside],
            [self._links.get((place.layer, place.writer, rank)) for rank in item.row.group],
            findings,
        )  # fmt: skip
        digest = hashlib.sha256(self._whole)
        digest.update(repr(parts).encode("utf-8", "surrogatepass"))
        return digest.hexdigest()[:16]


def _poles(item: DirectionView) -> list[object]:
    return [_said(view) for view in item.poles.values()]


def _said(view: PoleView) -> tuple[object, ...]:
    """What a list says of a pole: its label, or why there is none, and its score."""
    score = view.score
    failure = view.failure
    return (
        view.pole,
        view.state,
        view.text,
        failure.reason if failure else None,
        view.doubt,
        (score.score.f1, score.score.f1_interval) if score else None,
    )
