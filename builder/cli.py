"""The command line: parse, settings, pipeline, print.

stdout carries results, stderr progress and errors. Exit codes: 0 done, 1 the work failed, 2 the
request was wrong. Heavy libraries are imported by the command that needs them, so that ``--help``
answers at once.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builder import __version__
from builder.errors import ConfigError, WeightAtlasError, printable

if TYPE_CHECKING:
    from builder.endpoint.estimate import Estimate
    from builder.run_folder import Run

_ABOUT = "An atlas of what a fine-tune wrote into the weights of a language model."
_EPILOG = """\
examples:
  weightatlas demo                               three small models, from weights to a site
  weightatlas directions --tuned my-model --base its-base --plan
  weightatlas build recipes/qwen2.5-7b-instruct.toml
  weightatlas build my.toml --set scan.top=10 --set 'corpus.max_documents=5000'
  weightatlas label runs/mine --model gpt-4.1-mini --plan
  weightatlas render runs/one runs/two --out site

A command that is stopped, or killed, goes on where it was when it is given again.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code of a command line."""
    options = _parser().parse_args(arguments)
    # Model loading is ours to report; hub downloads keep their own progress bars.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    command: Callable[[argparse.Namespace], int] = options.command
    try:
        return command(options)
    except WeightAtlasError as error:
        print(f"weightatlas: {printable(str(error))}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("\nweightatlas: stopped; give the same command again to go on", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of our output went away, as `head` does.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="weightatlas",
        description=_ABOUT,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"weightatlas {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def add(name: str, command: Callable[[argparse.Namespace], int], about: str) -> Any:
        sub = commands.add_parser(name, help=about, description=about[0].upper() + about[1:] + ".")
        sub.set_defaults(command=command)
        return sub

    sub = add("directions", _directions, "take the directions from the weights")
    sub.add_argument(
        "place", type=Path, nargs="?", metavar="RECIPE", help="a recipe, a run folder, or --tuned"
    )
    _add_set(sub)
    for option, about in (
        ("--tuned", "the fine-tuned model: a folder, a hub id, or a LoRA adapter of either"),
        ("--base", "the model it started from, where neither adapter nor model card names it"),
    ):
        sub.add_argument(option, metavar="MODEL", help=about)
    sub.add_argument("--raw", action="store_true", help="of the tuned weights alone, without base")
    sub.add_argument(
        "--matrices", choices=("writers", "all"), help="all: spectra of every projection matrix"
    )
    sub.add_argument("--out", type=Path, metavar="RUN", help="run folder (default: runs/NAME)")
    sub.add_argument(
        "--plan", action="store_true", help="only say what would be read, and how much memory"
    )
    sub.add_argument("--json", action="store_true", help="machine-readable")

    for name, command, about in (
        ("build", _build, "every stage in order, from weights to site"),
        ("scan", _scan, "find the texts that excite each direction most and least"),
        ("label", _label, "name both poles of every direction"),
        ("score", _score, "judge every label on texts its labeler never saw"),
    ):
        sub = add(name, command, about)
        sub.add_argument("place", type=Path, metavar="RECIPE", help="a recipe or a run folder")
        _add_set(sub)
        if name == "scan":
            sub.add_argument(
                "--add",
                action="append",
                default=[],
                metavar="SOURCE",
                help="scan a further file, folder or dataset too; may be repeated",
            )
        if name == "label":
            _add_label(sub)
        elif name == "score":
            _add_score(sub)
        else:
            _add_compute(sub)

    sub = add("merge", _merge, "join scans of one model over different corpora into a new run")
    sub.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="run folders, scanned")
    sub.add_argument(
        "-o", "--out", type=Path, required=True, metavar="RUN", help="folder of the new run"
    )

    sub = add("render", _render, "render the site of exactly these run folders")
    sub.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="run folders")
    sub.add_argument("--out", default="site", help="folder of the site (default: site)")
    sub.add_argument("--title", default=None, help="title of the site")

    sub = add("preview", _preview, "serve a built site on this machine")
    sub.add_argument("site", type=Path, nargs="?", default=Path("site"), help="default: site")
    sub.add_argument("--port", type=int, default=8000, help="default: 8000")

    sub = add("status", _status, "say what is done in a run folder")
    sub.add_argument("run", type=Path, metavar="RUN", help="a run folder")
    sub.add_argument("--json", action="store_true", help="machine-readable")

    sub = add("organisms", _organisms, "train the small models with planted behaviours again")
    sub.add_argument("--out", type=Path, default=Path("organisms"), help="default: organisms")
    sub.add_argument("--family", action="append", default=[], help="only this family; repeatable")
    sub.add_argument("--seed", type=int, action="append", default=[], help="default: 1; repeatable")
    sub.add_argument(
        "--null", action="append", default=[], help="family to get a null tune too (default: qwen2)"
    )

    sub = add(
        "demo", _demo, "build the atlas of the three small models that come with this package"
    )
    sub.add_argument("--runs", default="runs", help="folder of the run folders (default: runs)")
    sub.add_argument("--out", default="site", help="folder of the site (default: site)")
    return parser


def _add_set(sub: Any) -> None:
    sub.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change a setting, such as scan.top=10; may be repeated",
    )


def _add_compute(sub: Any) -> None:
    sub.add_argument(
        "--executor", choices=("local", "ray"), help="who scans: this machine, or a Ray cluster"
    )
    sub.add_argument(
        "--address", help="of a running Ray cluster (default: Ray is started on this machine)"
    )
    sub.add_argument("--workers", type=int, metavar="N", help="that hold a model each (default: 1)")
    sub.add_argument(
        "--with-base", action="store_true", help="the same tokens through the base model too"
    )


def _add_label(sub: Any) -> None:
    sub.add_argument("--model", help="language model to ask (default: none; terms are counted)")
    sub.add_argument(
        "--candidates", type=int, metavar="K", help="labels asked for each pole (default: 1)"
    )
    _add_asking(sub, "base_url", "where a reply became no label")


def _add_score(sub: Any) -> None:
    sub.add_argument(
        "--model", dest="score_model", help="language model that judges (default: that of labels)"
    )
    _add_asking(sub, "score_base_url", "where a reply gave no verdict")


def _add_asking(sub: Any, base_url: str, failed: str) -> None:
    """The flags of every stage that may ask a language model."""
    sub.add_argument(
        "--base-url",
        dest=base_url,
        metavar="URL",
        help="of an OpenAI-compatible endpoint (default: OpenAI's)",
    )
    sub.add_argument(
        "--budget", type=float, metavar="USD", help="that all requests of this run may cost"
    )
    sub.add_argument(
        "--plan", action="store_true", help="only say what would be asked, and the price"
    )
    sub.add_argument("--retry-failed", action="store_true", help=f"ask again {failed}")
    sub.add_argument(
        "--batch", action="store_true", help="ask through the endpoint's batches: cheaper, slower"
    )


def _run(options: argparse.Namespace) -> Run:
    from builder.run_folder import read_run

    overrides = (*_compute_flags(options), *_label_flags(options), *options.set)
    return read_run(options.place, overrides, add=getattr(options, "add", ()))


def _compute_flags(options: argparse.Namespace) -> list[str]:
    """The overrides that the flags of a scan stand for."""
    named = {
        f"compute.{name}": getattr(options, name, None)
        for name in ("executor", "address", "workers")
    }
    if named["compute.address"] and options.executor == "local":
        raise ConfigError("--address: is a Ray cluster's; use --executor ray")
    if named["compute.address"]:
        named["compute.executor"] = "ray"
    named["scan.with_base"] = getattr(options, "with_base", False) or None
    return [f"{key}={json.dumps(value)}" for key, value in named.items() if value is not None]


def _label_flags(options: argparse.Namespace) -> list[str]:
    """The overrides that the flags of labelling stand for; a model is one to ask."""
    named = {
        f"label.{name}": getattr(options, name, None)
        for name in ("model", "base_url", "candidates", "budget")
    }
    if named["label.model"]:
        named["label.labeler"] = "openai"
    for name in ("model", "base_url"):
        named[f"score.{name}"] = getattr(options, f"score_{name}", None)
    return [f"{key}={json.dumps(value)}" for key, value in named.items() if value is not None]


def _build(options: argparse.Namespace) -> int:
    from builder import pipeline

    run = _run(options)
    report = pipeline.build(run)
    _print_status(pipeline.status(run.folder))
    _print_warnings(report.warnings)
    print(f"{report.pages} pages, {report.bytes / 2**20:.1f} MB")
    print(f"open {report.home}")
    return 0


def _directions(options: argparse.Namespace) -> int:
    from builder import pipeline

    run = _direction_run(options)
    pipeline.preflight(run, until="directions")
    if options.plan:
        _print_plan(pipeline.plan(run), as_json=options.json)
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
    _print_base(None if found.base is None else str(found.base), found.facts)
    print("rank: stable rank; noise: first sigma over what the same entries shuffled would give")
    print(f"{len(found.directions)} directions in {run.directions_path}")
    return 0


def _direction_run(options: argparse.Namespace) -> Run:
    """The run of a recipe with the flags on top, or that of the flags alone."""
    from builder.config import apply_override, here, parse_settings, run_name
    from builder.run_folder import Run, checked_run, is_run_folder, read_run

    if options.raw and options.base:
        raise ConfigError("--raw looks at the tuned weights alone; leave --base out")
    named = {"model.tuned": options.tuned, "model.base": options.base}
    flags = [
        f"{key}={json.dumps(here(value))}" for key, value in named.items() if value is not None
    ]
    flags += ['directions.method="raw"'] if options.raw else []
    flags += [f'directions.matrices="{options.matrices}"'] if options.matrices else []
    overrides = (*flags, *options.set)
    if options.place is not None:
        if options.out is not None:
            raise ConfigError("--out: a recipe or run folder says itself where its run is")
        return read_run(options.place, overrides)
    if options.tuned is None:
        raise ConfigError("directions: give a recipe, a run folder, or --tuned MODEL")
    table: dict[str, Any] = {"name": run_name(options.out.name if options.out else options.tuned)}
    if options.out is not None:
        if options.out.name in ("", ".."):
            raise ConfigError(f"--out: needs a folder of its own, not {str(options.out)!r}")
        if any(override.split("=")[0].strip() in ("name", "runs") for override in options.set):
            raise ConfigError("--out says name and runs already; leave them out of --set")
        table["runs"] = str(options.out.parent)
    for override in overrides:
        apply_override(table, override)
    settings = parse_settings(table, where="directions")
    folder = options.out or Path(settings.runs) / settings.name
    if is_run_folder(folder):  # what the flags leave out is as it is there
        return read_run(folder, overrides)
    return checked_run(Run(folder, settings))


def _print_plan(plan: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(plan, indent=1))
        return
    width = max(len(item["key"]) for item in plan["matrices"])
    for item in plan["matrices"]:
        shape = " x ".join(f"{side:,}" for side in item["shape"])
        print(f"{item['key']:{width}}  {shape:>17}  {item['bytes']:>15,} bytes  {item['module']}")
    _print_base(plan["base"], plan["facts"])
    print(f"{len(plan['matrices'])} matrices, {plan['bytes']:,} bytes to read")
    for what, size in plan["besides"].items():
        print(f"  and {size:,} bytes for {what}")
    print(f"about {plan['peak_memory_mb']:,} MB of memory at the peak")


def _print_base(base: str | None, facts: dict[str, str]) -> None:
    if base is not None:
        print(f"base: {printable(base)} ({facts.get('base_found', 'given')})")


def _scan(options: argparse.Namespace) -> int:
    from builder import pipeline

    run = _run(options)
    pipeline.preflight(run, until="scan")
    print(f"examples, histograms and ranges in {pipeline.make_scan(run)}")
    return 0


def _merge(options: argparse.Namespace) -> int:
    from builder import pipeline

    database = pipeline.join_runs(options.runs, options.out)
    print(f"examples, histograms and ranges of {len(options.runs)} runs in {database}")
    return 0


def _label(options: argparse.Namespace) -> int:
    from builder import pipeline

    run = _run(options)
    if options.plan:
        plan = pipeline.plan_requests(run, retry_failed=options.retry_failed, batch=options.batch)
        _print_requests(plan)
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


def _print_requests(plan: dict[str, Estimate | None]) -> None:
    for stage, found in plan.items():
        if found is None:
            print(f"{stage}: not known before there are labels")
            continue
        price = "price not known" if found.cost is None else f"about ${found.cost:,.2f}"
        print(
            f"{stage}: {found.requests:,} requests, {found.kept:,} of them answered already"
            f"{f', {found.in_batch:,} on their way in a batch' if found.in_batch else ''}; "
            f"{found.to_ask:,} to ask, about {found.prompt_tokens:,} tokens of prompts and at most "
            f"{found.completion_tokens:,} of replies, {price}"
        )


def _score(options: argparse.Namespace) -> int:
    from builder import pipeline

    run = _run(options)
    if options.plan:
        plan = pipeline.plan_scores(run, retry_failed=options.retry_failed, batch=options.batch)
        _print_requests({"score": plan})
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


def _render(options: argparse.Namespace) -> int:
    from builder import pipeline
    from builder.config import SiteSettings
    from builder.run_folder import existing_run

    runs = [existing_run(place) for place in options.runs]
    first = runs[0].settings.site
    title = first.title if options.title is None else options.title
    settings = SiteSettings(
        out=options.out, title=title, examples=first.examples, context=first.context
    )
    report = pipeline.make_site(options.runs, settings)
    _print_warnings(report.warnings)
    print(f"{report.pages} pages, {report.bytes / 2**20:.1f} MB")
    print(f"open {report.home}")
    return 0


def _preview(options: argparse.Namespace) -> int:
    import functools
    import http.server

    if not (options.site / "index.html").is_file():
        raise ConfigError(f"{options.site}: holds no site; run `weightatlas build` or `demo` first")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(options.site))
    try:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", options.port), handler)
    except (OSError, OverflowError) as error:
        raise ConfigError(f"port {options.port} cannot be used: {error}; try --port") from error
    with server:
        print(f"http://127.0.0.1:{server.server_port}/ (Ctrl-C stops)", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()
    return 0


def _status(options: argparse.Namespace) -> int:
    from builder import pipeline

    found = pipeline.status(options.run)
    if options.json:
        print(json.dumps(found, indent=1, sort_keys=True))
    else:
        _print_status(found)
    return 0


def _print_warnings(warnings: Sequence[str]) -> None:
    for warning in warnings:
        print(f"warning: {printable(warning)}", file=sys.stderr)


def _print_status(found: dict[str, Any]) -> None:
    print(f"run {found['name']} in {found['folder']}")
    if found["documents"] is not None:
        print(f"  {found['documents']:,} documents, {found['shards_done']} of ", end="")
        print(f"{found['shards']} shards scanned")
    if found["scan"] and found["shards"] and found["shards_done"] < found["shards"]:
        print(f"  {_scan_state(found['scan'], running=found['running'])}")
    for reason, n in sorted(found["dropped"].items()):
        print(f"  {n:,} rows left out: {reason}")
    for name, stage in found["stages"].items():
        facts = ", ".join(
            f"{value:,} {key.replace('_', ' ')}"
            for key, value in stage.items()
            if key not in ("fingerprint", "seconds", "peak_memory_mb")
        )
        print(f"  {name:<11}{stage['seconds']:>8.1f} s  {stage['peak_memory_mb']:>6,} MB  {facts}")


def _scan_state(scan: dict[str, Any], *, running: bool) -> str:
    """A line on a scan that is not finished."""
    if not running:
        return "no process works here now; the same command goes on where it was"
    who = f"{scan['executor']}, {scan['workers']} worker{'s' * (scan['workers'] != 1)}"
    if scan["seconds_left"] is None:
        return f"scanning ({who})"
    minutes = math.ceil(scan["seconds_left"] / 60)
    left = f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
    return f"scanning ({who}): {scan['tokens_per_second']:,.0f} tokens/s, about {left} left"


def _organisms(options: argparse.Namespace) -> int:
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


def _demo(options: argparse.Namespace) -> int:
    from builder.demo import run_demo

    for line in run_demo(Path(options.runs), Path(options.out)):
        print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
