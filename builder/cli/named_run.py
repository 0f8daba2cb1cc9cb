"""Which run do the arguments name, and with which settings? Flags are settings by another name."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builder.errors import ConfigError, shown

if TYPE_CHECKING:
    from builder.config import SiteSettings
    from builder.run_folder import Run


def named_run(options: argparse.Namespace) -> Run:
    """The run of a recipe or run folder, with what the flags say on top."""
    from builder.run_folder import read_run

    overrides = (*compute_flags(options), *label_flags(options), *options.set)
    return read_run(options.place, overrides, add=getattr(options, "add", ()))


def direction_run(options: argparse.Namespace) -> Run:
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


def site_settings(site: dict[str, Any], overrides: Sequence[str]) -> SiteSettings:
    """The settings of a site with ``site.key=value`` on top; raises ConfigError for any other."""
    from builder.config import apply_override, parse_settings

    # A whole recipe, so that faults are found and told as they are in one.
    table: dict[str, Any] = {"name": "site", "model": {"tuned": "none"}, "site": site}
    for override in overrides:
        if not override.strip().startswith("site."):
            raise ConfigError(
                f"--set {shown(override)}: runs are rendered as they are; only settings of the "
                "site can be changed here, such as site.examples=10"
            )
        apply_override(table, override)
    return parse_settings(table, where="render").site


def compute_flags(options: argparse.Namespace) -> list[str]:
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


def label_flags(options: argparse.Namespace) -> list[str]:
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
