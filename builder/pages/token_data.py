"""Which directions peak on a token, and which promote or suppress it? An index by token.

Scripts as search has them (:mod:`builder.pages.search_data`), for the same parts of a model, so
that a row is named by its number alone; and the commonest tokens of a model for reading without
script.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from builder.pages import links
from builder.pages.peaks_view import Peaking, PeakToken, folded
from builder.pages.search_data import column, literal, parts
from builder.pages.spans import brief
from builder.pages.views import DirectionView, RunView
from builder.records import POLES, Pole

#: Tokens of a model in the list without script, and poles of each.
LISTED, POLES_LISTED = 24, 4
#: A pole is listed for a token that at least so many of its examples peak on.
AT_LEAST = 2


@dataclass(frozen=True, slots=True)
class PeakingPole:
    """A pole and one of the tokens that its ``of`` examples peak on."""

    item: DirectionView
    pole: Pole
    token: PeakToken
    of: int


@dataclass(frozen=True, slots=True)
class TokenRow:
    """A token and the ``n`` poles of directions from the weights that peak on it most often.

    ``poles`` are the first of them: those with most examples, then the farthest.
    """

    token: str
    n: int
    poles: tuple[PeakingPole, ...]


def token_scripts(run: RunView, peaking: Peaking) -> Iterator[tuple[str, bytes]]:
    """(path, content) of the scripts that say for every token which rows of a run have it.

    Tokens are folded (:func:`builder.pages.peaks_view.folded`) and sorted. ``peaks`` and ``lens``
    hold for token t the entries ``starts[t]`` to ``starts[t + 1]``: the row within the part; of a
    peak how many examples and the farthest activation in thousandths; of the logit lens the
    logit in hundredths.
    """
    for part, held in parts(run):
        items = run.directions[held.start : held.stop]
        peaks: dict[str, list[tuple[int, ...]]] = {}
        lens: dict[str, list[tuple[int, ...]]] = {}
        for at, item in enumerate(items):
            for row, pole in enumerate(POLES, 2 * at):
                found = peaking.get((item.row.id, pole))
                for one in found.tokens if found else ():
                    entry = (row, one.n, round(1000 * one.value))
                    peaks.setdefault(brief(one.token), []).append(entry)
                promoted = item.row.promoted if pole == "max" else item.row.suppressed
                own = {brief(folded(text)): logit for text, logit in reversed(promoted)}
                for token, logit in own.items():
                    lens.setdefault(token, []).append((row, round(100 * logit)))
        tokens = sorted({*peaks, *lens})
        data = {
            "first": held.start,
            "tokens": column(tokens),
            "peaks": _entries(tokens, peaks, 3),
            "lens": _entries(tokens, lens, 2),
        }
        script = f"WA.tokens({literal(run.name)},{literal(data)});\n"
        yield links.token_script(run.name, part), script.encode("utf-8")


def _entries(
    tokens: list[str], held: dict[str, list[tuple[int, ...]]], width: int
) -> list[list[int]]:
    """The lists of all tokens, one after the other: where each begins, then column by column."""
    starts, columns = [0], [[] for _ in range(width)]  # type: tuple[list[int], list[list[int]]]
    for token in tokens:
        for entry in held.get(token, ()):
            for values, value in zip(columns, entry, strict=True):
                values.append(value)
        starts.append(len(columns[0]))
    return [starts, *columns]


def commonest_tokens(run: RunView, peaking: Peaking) -> tuple[TokenRow, ...]:
    """The tokens that most poles of directions from the weights peak on."""
    found: dict[str, list[PeakingPole]] = {}
    for item in run.own:
        for pole in POLES:
            peaks = peaking.get((item.row.id, pole))
            for one in peaks.tokens if peaks else ():
                if peaks and one.n >= AT_LEAST:
                    found.setdefault(one.token, []).append(PeakingPole(item, pole, one, peaks.n))
    ordered = sorted(found.items(), key=lambda pair: (-len(pair[1]), pair[0]))
    return tuple(
        TokenRow(token, len(poles), tuple(sorted(poles, key=_strength)[:POLES_LISTED]))
        for token, poles in ordered[:LISTED]
    )


def _strength(row: PeakingPole) -> tuple[float, float]:
    return (-row.token.n / row.of, -abs(row.token.value))
