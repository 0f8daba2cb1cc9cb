"""What does a model's page hold? Everything its template needs, from a run and its overview."""

from __future__ import annotations

from typing import Any

from builder.pages import coverage_view, lists_view
from builder.pages.chance_view import chance
from builder.pages.labels_view import labels_view
from builder.pages.map_view import map_view
from builder.pages.overview import Overview
from builder.pages.saturation_view import saturation_view
from builder.pages.spectra_view import spectra
from builder.pages.taught_view import taught
from builder.pages.views import RunView

#: What is said first on a model's page, and on its card.
SAID, SAID_ON_CARD = 5, 3


def model_page(run: RunView, view: Overview) -> dict[str, Any]:
    """The values of ``model.html``."""
    coverage = coverage_view.coverage
    return {
        "run": run,
        "taught": taught(run, view, SAID),
        "map": map_view(run, view),
        "labels": labels_view(run),
        "triggers": lists_view.trigger_list(run, view),
        "enriched": lists_view.source_list(run, view),
        "shifts": lists_view.shift_list(run),
        "strongest": lists_view.strongest(run),
        "chance": chance(run, view),
        "spectra": spectra(run),
        "saturation": saturation_view(run, view),
        "by_source": coverage(run, ("distinct", "documents", "tokens")),
        "by_role": coverage(run, ("roles",)),
        "dropped": coverage(run, ("dropped",)),
        "noted": coverage(run, ("noted",)),
        "excluded": coverage_view.exclusions(run),
        "sources": coverage_view.sources(run),
    }
