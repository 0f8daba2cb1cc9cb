"""What stands on a direction's page many times: written in one go, not by a template's loop.

A template's macro costs ten times what a line of Python does, and sites have thousands of pages.
Whatever comes from outside goes through :func:`builder.pages.spans.visible`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, partial

from markupsafe import Markup

from builder.pages.formats import NONE, fixed, passed, spaced, whole
from builder.pages.label_view import REASONS, PoleView
from builder.pages.score_view import STRATUM_NAMES, Column, PoleScores
from builder.pages.spans import brief, visible
from builder.records import Stratum


def lens_tokens(tokens: Sequence[tuple[str, float]]) -> Markup:
    """Tokens of the logit lens with their logits."""
    return Markup(" ".join(_token(text, f"{logit:+.1f}") for text, logit in tokens))  # noqa: S704


@lru_cache(maxsize=65536)
def _token(text: str, logit: str) -> str:
    return f"<code title={logit}>{visible(brief(spaced(text)))}</code>"


def told_briefly(pole: PoleView) -> Markup:
    """A pole's label, or what stands in its place, with its F1; grey if no better than chance."""
    score = _F1.format(fixed(pole.score.score.f1, 2)) if pole.score else ""
    reason = pole.failure.reason if pole.failure else ""
    said = _said(pole.state, pole.text or "", bool(pole.doubt), reason)
    return Markup(said + score)  # noqa: S704 - _said() escapes


_F1 = " <small>F1&nbsp;{}</small>"


@lru_cache(maxsize=65536)
def _said(state: str, text: str, is_doubtful: bool, reason: str) -> str:
    if state == "label":
        names = '"label doubtful"' if is_doubtful else "label"
        return f"<bdi class={names}>{visible(brief(text))}</bdi>"
    if state == "none":
        return '<span class="label none">no consistent pattern</span>'
    if state == "failed":
        said = visible(brief(REASONS.get(reason, reason)))
        return f'<span class="label failed">no label: {said}</span>'
    return '<span class="label unlabelled">not labelled yet</span>'


def score_table(found: PoleScores) -> Markup:
    """How a label scored, one column a scorer."""
    columns = found.columns
    rows: list[tuple[str, Callable[[Column], str]]] = [
        ("texts with a verdict", _verdicts),
        ("F1", _f1),
        ("AUPRC", _auprc),
        ("F1, shuffled verdicts", _shuffled),
        ("controls below", _below),
        *((f"yes, {STRATUM_NAMES[s]}", partial(_yes, s)) for s in found.strata),
    ]
    if any(column.view.score.unparsed for column in columns):
        rows.append(("no verdict", _unparsed))
    head = "".join(f"<th scope=col>{column.view.score.scorer}</th>" for column in columns)
    # End tags that HTML lets go are left out: both poles of thousands of pages have this table.
    body = "".join(
        f"<tr><th scope=row>{name}{''.join(f'<td>{cell(c)}' for c in columns)}"
        for name, cell in rows
    )
    # Names of scorers and strata are ours, and reasons are escaped.
    return Markup(  # noqa: S704
        f'<table class="list score num"><thead><tr><td></td>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table>"
    )


_NO_F1 = "<small>gives none</small>"


def _verdicts(column: Column) -> str:
    return whole(column.view.score.n_positive + column.view.score.n_negative)


def _f1(column: Column) -> str:
    score = column.view.score
    return _NO_F1 if column.ranks else f"<b>{fixed(score.f1, 2)}</b> {_range(score.f1_interval)}"


def _auprc(column: Column) -> str:
    score = column.view.score
    return f"{fixed(score.auprc, 2)} {_range(score.auprc_interval)}"


def _shuffled(column: Column) -> str:
    return _NO_F1 if column.ranks else _pair(column.view.score.chance)


def _below(column: Column) -> str:
    view = column.view
    if view.beats is None:
        return NONE
    return f"{passed(view.beats)} <small>of {whole(view.controls)}</small>"


def _yes(stratum: Stratum, column: Column) -> str:
    count = column.counts[stratum]
    if column.ranks:
        return f"<small>median</small> {fixed(count.middle, 2)}"
    return f"{count.yes} of {count.n}"


def _unparsed(column: Column) -> str:
    score = column.view.score
    several = len(score.faults) > 1
    faults = "; ".join(
        f"{visible(brief(reason))}{f' {n}' if several else ''}"
        for reason, n in score.faults.items()
    )
    return f"{whole(score.unparsed)} <small>{faults}</small>"


def _range(pair: tuple[float, float] | None) -> str:
    return f"<small>{_pair(pair)}</small>"


def _pair(pair: tuple[float, float] | None) -> str:
    return f"{fixed(pair[0], 2)}–{fixed(pair[1], 2)}" if pair else NONE
