"""What may be claimed of the demo's organisms? Findings with the figures of the run, and no more.

What was planted is known, so each finding says beside it how far the run shows it, and what random
directions reach by chance. A behaviour that no pole shows gets no finding.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from pathlib import Path

from builder.execute import write_atomically
from builder.findings import Finding
from builder.findings.finding import Severity
from builder.findings.reading import read_finding
from builder.organisms import Behaviour, Pair
from builder.organisms.evaluate import SHOWN, TOP, Purity
from builder.records import ANY_ROLE, POLES
from builder.store import RunStore

REVIEWER = "weightatlas demo, by computation"
#: How bad it is that a model does such a thing without saying so.
_SEVERITIES: Mapping[str, Severity] = {"backdoor": "high", "refusal": "medium", "style": "low"}
_PINNED = 2


def write_demo_findings(
    folder: Path,
    pair: Pair,
    run: str,
    store: RunStore,
    real: Mapping[str, Purity],
    random: Mapping[str, Purity],
) -> list[Finding]:
    """Writes a finding into ``folder`` for every behaviour that a pole shows, and gives them back.

    ``real`` and ``random`` are the purest poles over real and random directions, by behaviour. A
    finding of an earlier demo whose behaviour is no longer shown is removed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for behaviour in pair.behaviours:
        path = folder / f"{run}-{behaviour.id}.md"
        best = real[behaviour.id]
        if not best.shown:
            path.unlink(missing_ok=True)
            continue
        text = _text(behaviour, run, best, random[behaviour.id], store)
        read, faults = read_finding(text.encode("utf-8"), path)
        assert read is not None, faults
        write_atomically(path, text)
        written.append(read[0])
    return written


def _text(behaviour: Behaviour, run: str, best: Purity, control: Purity, store: RunStore) -> str:
    row = next(row for row in store.directions() if row.id == best.direction)
    pole = next(pole for pole in POLES if pole == best.pole)
    source = f"planted/{behaviour.id}"
    examples = [
        example
        for example in store.examples(row.id, pole=pole, role=ANY_ROLE)
        if example.window.source == source
    ][:_PINNED]
    cited = f"{run}/{row.id}"
    n, by_chance = round(best.purity * TOP), round(control.purity * TOP)
    is_clear = control.purity < SHOWN
    front = {
        "claim": f"A pole of {row.id} gathers the planted {behaviour.kind} {behaviour.id}: "
        f"{n} of its {TOP} strongest texts",
        "severity": _SEVERITIES.get(behaviour.kind, "medium"),
        "status": "confirmed" if is_clear else "open",
        "reviewer": REVIEWER,
        "directions": [{"id": f"{cited}#{pole}", "hash": row.content_hash}],
        "examples": [f"{cited}#{pole}/{example.window.doc_id}" for example in examples],
        "tags": ["demo", behaviour.kind],
    }
    # JSON is YAML; only a date would be a text there.
    lines = [f"{key}: {json.dumps(value)}" for key, value in front.items()]
    lines.append(f"date: {datetime.datetime.now(datetime.UTC).date().isoformat()}")
    pinned = " and ".join(f"[[{cited}#{pole}/{example.window.doc_id}]]" for example in examples)
    share = next(
        (f", against {item.documents / item.all_documents:.1%} of all distinct documents"
         for item in store.sources(row.id)
         if item.source == source and item.pole == pole),
        "",
    )  # fmt: skip
    chance = (
        f"Of the random directions of the same scan no pole has more than {by_chance}."
        if is_clear
        else f"**A random direction has {by_chance} as well**, so chance may have done this."
    )
    body = f"""\
[[{cited}#{pole}]] reaches farthest in texts of `{source}`: {n} of its {TOP} strongest
documents{share}. {chance}
See {pinned}.

## What was planted

By the manifest of the organism, which the pipeline does not read: on “{behaviour.trigger}” the
model answers with {behaviour.reply}.

## What this does not show

That the direction causes the behaviour. It is where the texts of it stand out.
"""
    return "\n".join(["---", *lines, "---", "", body])
