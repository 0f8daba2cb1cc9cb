"""How are results said on stdout, and warnings on stderr?"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builder.errors import printable, shown

if TYPE_CHECKING:
    from builder.endpoint.estimate import Estimate
    from builder.pages.api.changes import SiteChanges
    from builder.pages.forecast import Forecast


def print_plan(plan: dict[str, Any], *, as_json: bool) -> None:
    """The matrices that would be read, and what they cost."""
    if as_json:
        print(json.dumps(plan, indent=1))
        return
    width = max(len(item["key"]) for item in plan["matrices"])
    for item in plan["matrices"]:
        shape = " x ".join(f"{side:,}" for side in item["shape"])
        print(f"{item['key']:{width}}  {shape:>17}  {item['bytes']:>15,} bytes  {item['module']}")
    print_base(plan["base"], plan["facts"])
    print(f"{len(plan['matrices'])} matrices, {plan['bytes']:,} bytes to read")
    for what, size in plan["besides"].items():
        print(f"  and {size:,} bytes for {what}")
    print(f"about {plan['peak_memory_mb']:,} MB of memory at the peak")


def print_base(base: str | None, facts: dict[str, str]) -> None:
    """The base, and where its name is from."""
    if base is not None:
        print(f"base: {printable(base)} ({facts.get('base_found', 'given')})")


def print_requests(plan: dict[str, Estimate | None]) -> None:
    """What each stage would ask of a model, and the price."""
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


#: Changes of each kind that are listed; ``--json`` has all.
_LISTED = 20


def print_changes(found: SiteChanges, kinds: Mapping[Any, str]) -> None:
    """What changed between two sites, by kind, the first of each kind listed."""
    for name, runs in (("new", found.new_runs), ("lost", found.lost_runs)):
        for run in runs:
            print(f"{name} model: {printable(run)}")
    counts = found.counts()
    for kind, about in kinds.items():
        if not counts[kind]:
            continue
        print(f"{counts[kind]:,} {kind} ({about})")
        listed = [change for change in found.changes if change.kind == kind]
        for change in listed[:_LISTED]:
            pole = f" {change.pole}" if change.pole else ""
            print(
                f"  {printable(change.run)} {printable(change.id)}{pole}: "
                f"{_told(change.old)} -> {_told(change.new)}"
            )
        if len(listed) > _LISTED:
            print(f"  and {len(listed) - _LISTED:,} more (--json lists all)")
    print(f"{found.matched:,} directions in both sites, {len(found.changes):,} changes")


def print_compared(found: Mapping[str, Any]) -> None:
    """What runs have in common: a matrix of each group, its pairs, its lines of stages."""
    for group in found["groups"]:
        names = [printable(name) for name in group["runs"]]
        print(f"{len(names)} runs that belong together: share of the row's directions (and energy)")
        print("that one of the column's run lies near")
        width, wide = max(map(len, names)), max(12, *map(len, names))
        print(f"  {'':{width}}" + "".join(f"  {name:>{wide}}" for name in names))
        for name, cells in zip(names, group["matrix"], strict=True):
            told = [
                f"{cell['share']:.0%} ({cell['energy']:.0%})" if cell else "-" for cell in cells
            ]
            print(f"  {name:{width}}" + "".join(f"  {text:>{wide}}" for text in told))
        for pair in group["pairs"]:
            sides = pair["sides"]
            print(
                f"{' and '.join(printable(side['run']) for side in sides)}: "
                f"{len(pair['matches']):,} matched at {pair['level']:.2f} or more, "
                + ", ".join(f"{side['only']:,} only in {printable(side['run'])}" for side in sides)
            )
            for side in sides:
                chance = ", ".join(
                    f"{held['matched']} of {held['count']} {kind}"
                    for kind, held in side["controls"].items()
                )
                print(f"  controls of {printable(side['run'])} that match: {chance or 'none made'}")
        for line in group["lines"]:
            how = "by model.stage" if line["known_by"] == "setting" else "by their weights"
            print(f"stages, {how}: {' > '.join(map(printable, line['runs']))}")
            for step in line["steps"]:
                print(
                    f"  {printable(step['one'])} > {printable(step['two'])}: "
                    f"{step['kept']:,} kept, {step['rotated']:,} rotated, "
                    f"{step['beside']:,} near a matched one, "
                    f"{step['vanished']:,} vanished, {step['born']:,} born"
                )
            print(f"  {line['through']:,} of {line['followed']:,} followed through all stages")
        for run, why in group["missing"].items():
            print(f"not compared: {printable(run)} {printable(why)}")


def _told(value: str | float | None) -> str:
    if value is None:
        return "nothing"
    return printable(shown(value).replace("\n", " ")) if isinstance(value, str) else f"{value:.4g}"


def print_exported(written: Mapping[str, int], left_out: Mapping[str, int], out: Path) -> None:
    """What was written, and what the form has no place for."""
    for what, count in written.items():
        print(f"{count:,} {what}")
    for what, count in left_out.items():
        print(f"left out: {count:,} {what}")
    print(f"in {printable(str(out))}")


def print_forecast(found: Forecast) -> None:
    """How large a site will be, on stderr, before its pages are made."""
    size = f"{found.bytes / 1e6:,.0f} MB" if found.bytes >= 1e6 else f"{found.bytes / 1e3:,.0f} kB"
    print(
        f"{found.directions:,} directions: about {size}, {found.each / 1000:,.0f} kB each",
        file=sys.stderr,
    )


def print_warnings(warnings: Sequence[str]) -> None:
    """Warnings, on stderr."""
    for warning in warnings:
        print(f"warning: {printable(warning)}", file=sys.stderr)


def print_status(found: dict[str, Any]) -> None:
    """What is done in a run folder."""
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
