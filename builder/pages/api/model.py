"""What do the JSON files of a whole run and of the site say?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from builder import __version__
from builder.pages import links
from builder.pages.api.form import SCHEMA_VERSION
from builder.pages.api.run_form import (
    BriefDirection,
    BriefPole,
    Counts,
    File,
    Identity,
    RunFile,
    SiteFile,
    Source,
)
from builder.pages.api.written import interval, number
from builder.pages.formats import name_alone
from builder.pages.label_view import PoleView
from builder.pages.views import DirectionView, RunView


def run_file(run: RunView) -> RunFile:
    """A run with all of its directions in brief."""
    return {
        "schema_version": SCHEMA_VERSION,
        **_identity(run),
        "d_model": run.d_model,
        "n_layers": run.n_layers,
        "facts": {name: name_alone(value) for name, value in run.facts.items()},
        "settings": {name: name_alone(value) for name, value in run.settings.items()},
        "versions": run.versions,
        "corpus": sources(run),
        "counted": [
            {"what": count.what, "name": count.name, "layer": count.layer, "n": count.n}
            for count in run.counts
        ],
        "spent": [
            {
                "stage": spend.stage,
                "model": spend.model,
                "requests": spend.requests,
                "prompt_tokens": spend.prompt_tokens,
                "completion_tokens": spend.completion_tokens,
                "cost": number(spend.cost),
            }
            for spend in run.spend
        ],
        "directions": [_brief(run, item) for item in run.directions],
    }


def site_file(
    runs: Sequence[RunView], files: Mapping[str, Sequence[File]], title: str, url: str
) -> SiteFile:
    """The site with its models; ``files`` are those to download, by the name of the run."""
    return {
        "schema_version": SCHEMA_VERSION,
        "generator": {"name": "weightatlas", "version": __version__},
        "title": title,
        "url": url or None,
        "models": [
            {
                **_identity(run),
                "json": links.api_file(run.name, "index"),
                "files": list(files.get(run.name, ())),
            }
            for run in runs
        ],
    }


def _identity(run: RunView) -> Identity:
    """What the files of a run and of the site both say of it."""
    return {
        "run": run.name,
        "title": run.title,
        "page": run.page,
        "base": run.base and name_alone(run.base),
        "base_revision": run.base_revision,
        "tuned": run.tuned and name_alone(run.tuned),
        "tuned_revision": run.tuned_revision,
        "method": run.method,
        "how": run.how,
        "counts": _counts(run),
    }


def sources(run: RunView) -> list[Source]:
    """The sources of a run's corpus, with what is known of their licences."""
    held = run.corpus.get("sources")
    found: list[Source] = []
    for source in held if isinstance(held, list) else []:
        if isinstance(source, Mapping):
            licence, where = source.get("licence"), source.get("where")
            found.append(
                {
                    "name": name_alone(str(source.get("name") or where or "")),
                    "licence": str(licence) if licence else None,
                    "where": name_alone(str(where)) if where else None,
                }
            )
    return found


def _counts(run: RunView) -> Counts:
    return {
        "directions": len(run.own),
        "controls": len(run.directions) - len(run.own),
        "documents": run.total("documents"),
        "tokens": run.total("tokens"),
        "poles": run.states(),
    }


def _brief(run: RunView, item: DirectionView) -> BriefDirection:
    return {
        "id": item.row.id,
        "content_hash": item.row.content_hash,
        "page": item.page,
        "json": item.data,
        "kind": item.row.kind,  # type: ignore[typeddict-item]  # the database holds no other
        "sigma": number(item.row.sigma),
        "poles": {pole: _brief_pole(view) for pole, view in item.poles.items()},
    }


def _brief_pole(view: PoleView) -> BriefPole:
    score = view.score
    return {
        "state": view.state,
        "label": view.text,
        "labeler": view.label.labeler if view.label else None,
        "score": {
            "scorer": score.score.scorer,
            "f1": number(score.score.f1),
            "f1_interval": interval(score.score.f1_interval),
            "beats": number(score.beats),
        }
        if score
        else None,
    }
