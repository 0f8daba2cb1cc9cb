"""Which commands are there, and which flags does each take?"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from builder import __version__
from builder.cli import commands as do

_ABOUT = "An atlas of what a fine-tune wrote into the weights of a language model."
_EPILOG = """\
examples:
  weightatlas demo                               three small models, from weights to a site
  weightatlas directions --tuned my-model --base its-base --plan
  weightatlas build recipes/qwen2.5-7b-instruct.toml
  weightatlas build my.toml --set scan.top=10 --set 'corpus.max_documents=5000'
  weightatlas label runs/mine --model gpt-4.1-mini --plan
  weightatlas render runs/one runs/two --out site
  weightatlas compare runs/sft runs/dpo
  weightatlas diff published site --fail-on lost,relabelled

A command that is stopped, or killed, goes on where it was when it is given again.
"""


def make_parser() -> argparse.ArgumentParser:
    """The parser; ``command`` of what it gives is the function to call with it."""
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

    sub = add("directions", do.directions, "take the directions from the weights")
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
        ("build", do.build, "every stage in order, from weights to site"),
        ("scan", do.scan, "find the texts that excite each direction most and least"),
        ("label", do.label, "name both poles of every direction"),
        ("score", do.score, "judge every label on texts its labeler never saw"),
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
        if name == "build":
            _add_strict(sub)
        if name == "label":
            _add_label(sub)
        elif name == "score":
            _add_score(sub)
        else:
            _add_compute(sub)

    sub = add("merge", do.merge, "join scans of one model over different corpora into a new run")
    sub.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="run folders, scanned")
    sub.add_argument(
        "-o", "--out", type=Path, required=True, metavar="RUN", help="folder of the new run"
    )

    sub = add("render", do.render, "render the site of exactly these run folders")
    sub.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="run folders")
    sub.add_argument("--out", help="folder of the site (default: that of the first run's recipe)")
    sub.add_argument("--title", default=None, help="title of the site")
    sub.add_argument("--url", help="address that the site will have, for cards and the site map")
    sub.add_argument(
        "--downloads",
        choices=("tables", "examples", "database"),
        help="files to offer: light tables, texts as well, the database as well (default: tables)",
    )
    sub.add_argument(
        "--findings",
        metavar="DIR",
        help="folder of findings (default: that of the recipes, else findings if it is there)",
    )
    _add_set(sub, "change a setting of the site, such as site.examples=10; may be repeated")
    _add_strict(sub)

    sub = add("publish", do.publish, "check a built site, and put it where a host takes it from")
    sub.add_argument("site", type=Path, metavar="SITE", help="folder of a built site")
    sub.add_argument(
        "--to",
        choices=("gh-pages", "folder", "actions", "space"),
        help="a branch, a clean copy (--out), a workflow, a static Space (default: only check)",
    )
    sub.add_argument("--out", type=Path, metavar="DIR", help="new folder, for folder and space")
    sub.add_argument(
        "--repo",
        metavar="PLACE",
        help="repository: folder or address; of a space OWNER/NAME (default: this folder)",
    )
    sub.add_argument("--branch", default="gh-pages", help="for gh-pages (default: gh-pages)")
    sub.add_argument("--push", action="store_true", help="send it, too")
    sub.add_argument("--orphan", action="store_true", help="a branch without its history")
    sub.add_argument("--strict", action="store_true", help="a warning ends it with 1")

    sub = add("compare", do.compare, "say what runs of one base have in common")
    sub.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="run folders, two or more")
    sub.add_argument("--json", action="store_true", help="machine-readable, every match")

    sub = add("diff", do.diff, "say what changed between two built sites")
    sub.add_argument("old", type=Path, metavar="OLD", help="folder of a built site")
    sub.add_argument("new", type=Path, metavar="NEW", help="folder of a later one")
    sub.add_argument("--json", action="store_true", help="machine-readable, every change")
    sub.add_argument(
        "--fail-on",
        default="",
        metavar="KINDS",
        help="exit with 1 if there are changes of these kinds, as in lost,relabelled, or any",
    )
    sub.add_argument(
        "--step",
        type=float,
        metavar="F1",
        help="a score changed if F1 differs by more (default: if it leaves an interval)",
    )

    sub = add("export", do.export, "write a run in the form that another tool imports")
    sub.add_argument("run", type=Path, metavar="RUN", help="a run folder")
    sub.add_argument(
        "--to",
        choices=("neuronpedia", "parquet"),
        required=True,
        help="Neuronpedia's layout for bulk import, or every table with texts and activations",
    )
    sub.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new folder")
    for option, about in (
        ("--model-id", "name of the model there (default: that of the run)"),
        ("--release", "name of the release there (default: weightatlas-RUN)"),
        ("--creator", "who is named as its creator there (default: weightatlas)"),
        ("--creator-id", "id of the user that rows belong to there (default: the usual one)"),
    ):
        sub.add_argument(option, help=about)

    sub = add("findings", do.import_findings, "take apart what the triage page exported")
    kinds = sub.add_subparsers(metavar="ACTION", required=True)
    sub = kinds.add_parser(
        "import",
        help="put every finding of an exported file into a file of its own",
        description="Put every finding of an exported file into a file of its own.",
    )
    sub.add_argument("file", type=Path, metavar="FILE", help="findings-DATE.txt of triage.html")
    sub.add_argument(
        "--out", type=Path, default=Path("findings"), help="folder (default: findings)"
    )

    sub = add("preview", do.preview, "serve a built site on this machine")
    sub.add_argument("site", type=Path, nargs="?", default=Path("site"), help="default: site")
    sub.add_argument("--port", type=int, default=8000, help="default: 8000")

    sub = add("status", do.status, "say what is done in a run folder")
    sub.add_argument("run", type=Path, metavar="RUN", help="a run folder")
    sub.add_argument("--json", action="store_true", help="machine-readable")

    sub = add("organisms", do.organisms, "train the small models with planted behaviours again")
    sub.add_argument("--out", type=Path, default=Path("organisms"), help="default: organisms")
    sub.add_argument("--family", action="append", default=[], help="only this family; repeatable")
    sub.add_argument("--seed", type=int, action="append", default=[], help="default: 1; repeatable")
    sub.add_argument(
        "--null", action="append", default=[], help="family to get a null tune too (default: qwen2)"
    )

    sub = add(
        "demo", do.demo, "build the atlas of the three small models that come with this package"
    )
    sub.add_argument("--runs", default="runs", help="folder of the run folders (default: runs)")
    sub.add_argument("--out", default="site", help="folder of the site (default: site)")
    return parser


def _add_strict(sub: Any) -> None:
    sub.add_argument(
        "--strict", action="store_true", help="a warning ends it with 1, and the site stays"
    )


def _add_set(
    sub: Any, about: str = "change a setting, such as scan.top=10; may be repeated"
) -> None:
    sub.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help=about,
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
