"""What does each command do? Settings, pipeline, results; each gives back the exit code."""

from __future__ import annotations

import argparse
import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from builder.cli.named_run import direction_run, named_run, site_settings
from builder.cli.printing import (
    print_base,
    print_changes,
    print_compared,
    print_exported,
    print_forecast,
    print_plan,
    print_requests,
    print_status,
    print_warnings,
)
from builder.errors import ConfigError, shown

if TYPE_CHECKING:
    from builder.publish.checks import Checked


def build(options: argparse.Namespace) -> int:
    """Every stage in order, then what is done and the page to open."""
    from builder import pipeline

    run = named_run(options)
    report = pipeline.build(run, strict=options.strict, on_forecast=print_forecast)
    print_status(pipeline.status(run.folder))
    print_warnings(report.warnings)
    print(f"{report.pages} pages, {report.bytes / 2**20:.1f} MB")
    print(f"open {report.home}")
    return 0


def directions(options: argparse.Namespace) -> int:
    """Directions, or with ``--plan`` what would be read for them."""
    from builder import pipeline

    run = direction_run(options)
    pipeline.preflight(run, until="directions")
    if options.plan:
        print_plan(pipeline.plan(run), as_json=options.json)
        return 0
    found = pipeline.make_directions(run)
    spectra = [pipeline.spectrum_facts(spectrum) for spectrum in found.spectra]
    if options.json:
        facts = {"directions": len(found.directions), "facts": found.facts, "spectra": spectra}
        print(json.dumps(facts, indent=1))
        return 0
    width = max(len(spectrum["key"]) for spectrum in spectra)
    print(f"{'':{width}}  {'|dW|':>9}  {'rank':>6}  {'noise':>6}  sigma")
    for spectrum in spectra:
        top = ", ".join(f"{sigma:.3g}" for sigma in spectrum["sigmas"][:5])
        print(
            f"{spectrum['key']:{width}}  {spectrum['frobenius']:9.3g}  "
            f"{spectrum['stable_rank']:6.1f}  {spectrum['above_noise']:6.1f}  {top}"
        )
    print_base(None if found.base is None else str(found.base), found.facts)
    print("rank: stable rank; noise: first sigma over what the same entries shuffled would give")
    print(f"{len(found.directions)} directions in {run.directions_path}")
    return 0


def scan(options: argparse.Namespace) -> int:
    """The database of a scanned run."""
    from builder import pipeline

    run = named_run(options)
    pipeline.preflight(run, until="scan")
    print(f"examples, histograms and ranges in {pipeline.make_scan(run)}")
    return 0


def merge(options: argparse.Namespace) -> int:
    """A new run of several."""
    from builder import pipeline

    database = pipeline.join_runs(options.runs, options.out)
    print(f"examples, histograms and ranges of {len(options.runs)} runs in {database}")
    return 0


def label(options: argparse.Namespace) -> int:
    """Labels, or with ``--plan`` what would be asked for them; 1 where none could be had."""
    from builder import pipeline

    run = named_run(options)
    if options.plan:
        plan = pipeline.plan_requests(run, retry_failed=options.retry_failed, batch=options.batch)
        print_requests(plan)
        return 0
    summary = pipeline.make_labels(run, retry_failed=options.retry_failed, batch=options.batch)
    print(
        f"{summary['labelled']} poles labelled, {summary['no_pattern']} without a consistent "
        f"pattern, {summary['failed']} failed"
    )
    if summary.get("not_asked"):
        print(
            f"{summary['not_asked']} prompts were not asked: the budget of "
            f"${run.settings.label.budget:,.2f} is used up; raise --budget to go on"
        )
        return 1
    nothing = summary["failed"] and not summary["labelled"] + summary["no_pattern"]
    return 1 if nothing else 0


def score(options: argparse.Namespace) -> int:
    """Scores, or with ``--plan`` what would be asked for them; 1 where none could be had."""
    from builder import pipeline

    run = named_run(options)
    if options.plan:
        plan = pipeline.plan_scores(run, retry_failed=options.retry_failed, batch=options.batch)
        print_requests({"score": plan})
        return 0
    summary = pipeline.make_scores(run, retry_failed=options.retry_failed, batch=options.batch)
    print(f"{summary['scored']} poles scored, {summary['unparsed_texts']} texts without a verdict")
    if unjudged := summary.get("unjudged_labels", 0):
        print(f"{unjudged} labels wait for a language model to judge them (--model)")
    if summary.get("not_asked"):
        print(
            f"{summary['not_asked']} texts were not asked about: the budget of "
            f"${run.settings.label.budget:,.2f} is used up; raise --budget to go on"
        )
        return 1
    nothing = summary["unparsed_texts"] and not summary["scored"]
    return 1 if nothing else 0


def render(options: argparse.Namespace) -> int:
    """The site of run folders."""
    from builder import pipeline
    from builder.run_folder import existing_run

    runs = [existing_run(place) for place in options.runs]
    first = runs[0].settings.site
    given = {
        name: value
        for name in ("out", "title", "downloads", "url")
        if (value := getattr(options, name)) is not None
    }
    found = _findings(options.findings, [run.settings.site.findings for run in runs])
    site = first.model_dump(mode="json", exclude_none=True) | given
    site.pop("findings", None)
    if found is not None:
        site["findings"] = found
    settings = site_settings(site, options.set)
    report = pipeline.make_site(
        options.runs, settings, strict=options.strict, on_forecast=print_forecast
    )
    print_warnings(report.warnings)
    print(f"{report.pages} pages, {report.bytes / 2**20:.1f} MB")
    if report.left:
        print(f"no longer in the site: {', '.join(report.left)} (render names all of its models)")
    for line in pipeline.missing_furniture(settings):
        print(line)
    print(f"open {report.home}")
    return 0


def publish(options: argparse.Namespace) -> int:
    """Checks a site, all that is wrong at once; then puts it where it was asked to be."""
    from builder.publish.checks import check_site

    to = options.to
    if options.out is None and (to == "folder" or (to == "space" and not options.push)):
        raise ConfigError(f"--to {to}: say with --out which new folder the copy goes into")
    if options.push and to == "space" and not options.repo:
        raise ConfigError("--to space --push: say with --repo OWNER/NAME which Space it is")
    checked = check_site(options.site, to or "folder")
    print_warnings(checked.warnings)
    checked.refuse(strict=options.strict)
    print(f"{len(checked.files):,} files, {checked.bytes / 2**20:.1f} MB, fit to be published")
    if to == "gh-pages":
        from builder.publish.branch import publish_branch

        found = publish_branch(
            checked,
            options.repo or ".",
            branch=options.branch,
            push=options.push,
            orphan=options.orphan,
        )
        same = " already" if found.is_same else ""
        where = ", pushed to origin" if found.is_pushed else ""
        print(f"{found.branch} is{same} at {found.commit[:12]} with this site{where}")
    elif to == "actions":
        from builder.publish.workflow import write_workflow

        print(f"{write_workflow(checked, Path(options.repo or '.'))} written; commit and push it")
        print("and choose GitHub Actions as the source in the settings of Pages")
    elif to is not None:
        _publish_copy(checked, options)
    return 0


def _publish_copy(checked: Checked, options: argparse.Namespace) -> None:
    import tempfile

    from builder.publish.copies import copy_site

    with tempfile.TemporaryDirectory(prefix="weightatlas-") as scratch:
        out = options.out or Path(scratch) / "space"
        files = copy_site(checked, out, as_space=options.to == "space")
        if options.out is not None:
            print(f"{files:,} files in {out}")
        if options.push and options.to == "space":
            from builder.publish.space import upload_space

            print(f"published at {upload_space(out, options.repo)}")


def compare(options: argparse.Namespace) -> int:
    """What runs of one base have in common."""
    from builder import pipeline

    found, faults = pipeline.compare(options.runs)
    if options.json:
        print(json.dumps(found, indent=1, allow_nan=False))
    else:
        print_compared(found)
    print_warnings(faults)
    return 0


def diff(options: argparse.Namespace) -> int:
    """What changed between two sites; 1 where it is a change that was asked to fail."""
    from builder.pages.api.changes import KINDS, site_changes

    named = [name.strip() for name in options.fail_on.split(",") if name.strip()]
    if unknown := sorted(set(named) - {*KINDS, "any"}):
        raise ConfigError(
            f"--fail-on: {shown(', '.join(unknown))} is no kind of change; known are "
            f"{', '.join(KINDS)}, and any"
        )
    if options.step is not None and not options.step >= 0:
        raise ConfigError(f"--step: expected a number of 0 or more, found {options.step}")
    found = site_changes(options.old, options.new, options.step)
    if options.json:
        print(json.dumps(found.as_values(), indent=1, allow_nan=False))
    else:
        print_changes(found, KINDS)
    failing = KINDS if "any" in named else named
    return int(any(change.kind in failing for change in found.changes))


def export(options: argparse.Namespace) -> int:
    """A run in another tool's form, and what that has no place for."""
    from builder.run_folder import existing_run

    run = existing_run(options.run)
    named = {
        "model": options.model_id,
        "release": options.release,
        "creator": options.creator,
        "creator_id": options.creator_id,
    }
    if options.to == "parquet":
        from builder.exports.tables import export_tables

        if any(named.values()):
            raise ConfigError("names are Neuronpedia's; leave them out with --to parquet")
        print_exported({"tables": export_tables(run.folder, options.out)}, {}, options.out)
        return 0
    from builder.exports.neuronpedia import Names, export_neuronpedia

    found = export_neuronpedia(run.folder, options.out, Names.of(run.settings.name, **named))
    print_exported(found.written, found.left_out, options.out)
    return 0


def _findings(named: str | None, of_recipes: Sequence[str | None]) -> str | None:
    """The folder of findings of a site: as asked, of the first recipe that has one, or the usual.

    Runs that name different folders have no common one; then one has to be asked for.
    """
    from builder.config import FINDINGS

    if named is not None:
        return named
    found = list(dict.fromkeys(folder for folder in of_recipes if folder))
    if len(found) > 1:
        raise ConfigError(
            f"the runs have their findings in different folders ({', '.join(found)}); say which "
            "with --findings"
        )
    return found[0] if found else FINDINGS if Path(FINDINGS).is_dir() else None


def import_findings(options: argparse.Namespace) -> int:
    """Findings in files of their own."""
    from builder import pipeline

    found = pipeline.import_findings(options.file, options.out)
    for path in found.written:
        print(path)
    if found.same:
        print(f"{len(found.same)} were there already, with the same content")
    print(f"{len(found.written)} findings written; `weightatlas render` shows them")
    return 0


def preview(options: argparse.Namespace) -> int:
    """Serves a site until it is stopped."""
    from builder.publish.preview import preview_server

    server = preview_server(options.site, options.port)
    with server:
        print(f"http://127.0.0.1:{server.server_port}/ (Ctrl-C stops)", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()
    return 0


def status(options: argparse.Namespace) -> int:
    """What is done in a run folder."""
    from builder import pipeline

    found = pipeline.status(options.run)
    if options.json:
        print(json.dumps(found, indent=1, sort_keys=True))
    else:
        print_status(found)
    return 0


def organisms(options: argparse.Namespace) -> int:
    """The small models, trained again."""
    from builder.organisms.families import FAMILIES
    from builder.organisms.train import NULL_FAMILIES, make_organisms

    manifest = make_organisms(
        options.out,
        families=tuple(options.family) or tuple(FAMILIES),
        seeds=tuple(options.seed) or (1,),
        null_families=tuple(options.null) or NULL_FAMILIES,
    )
    print(f"{len(manifest['pairs'])} pairs in {options.out}")
    return 0


def demo(options: argparse.Namespace) -> int:
    """The atlas of the small models."""
    from builder.demo import run_demo

    for line in run_demo(Path(options.runs), Path(options.out)):
        print(line)
    return 0
