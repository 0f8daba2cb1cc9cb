"""On which tokens do the examples of a run peak? Their texts by pole, all in one query.

The texts are cut inside the database: windows are a hundred times longer than their peaks, and a
run has hundreds of thousands of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from builder.records import POLES, Pole
from builder.store.database import Database
from builder.store.rows import Peak

#: Rows of (direction, pole, any_place, source, value, token). A token that holds only a part of a
#: character has the text of the character, which another token may hold, and a window's text may
#: end before its tokens do. For such tokens, the few without a length, the bounds of all tokens are
#: added up: the token's text then begins at the last bound before its end. Lists and strings count
#: from 1.
_PEAKS = """
    WITH own AS (
        SELECT *, coalesce(list_sum(token_lengths[1:peak]), 0)::BIGINT AS before,
               token_lengths[peak + 1]::BIGINT AS length
        FROM examples WHERE any_place IS NOT NULL AND ($most IS NULL OR any_place < $most)
    ), bounded AS (
        SELECT *, CASE WHEN length = 0 OR before + length > length(text) THEN
            [least(list_sum(token_lengths[1:i])::BIGINT, length(text))
             FOR i IN range(1, len(token_lengths) + 1)] END AS bounds
        FROM own
    ), ended AS (
        SELECT *, CASE WHEN bounds IS NULL THEN before + length
                  WHEN bounds[peak + 1] > 0 THEN bounds[peak + 1]
                  ELSE coalesce(list_min([bound FOR bound IN bounds IF bound > 0]), 0) END AS stop
        FROM bounded
    ), begun AS (
        SELECT *, CASE WHEN bounds IS NULL THEN before
                  ELSE coalesce(list_max([bound FOR bound IN bounds IF bound < stop]), 0)
                  END AS begin
        FROM ended
    )
    SELECT direction, pole, any_place, source, value,
           substring(masked(text), begin + 1, stop - begin) AS token
    FROM begun
"""


class PeakTables(Database):
    """A run's database with the peaks of its examples."""

    def peaks(self, most: int | None = None) -> Iterator[tuple[str, Pole, list[Peak]]]:
        """(direction, pole, peaks of its examples by place) for every pole that has examples.

        In scan order, the max pole first. The list is that over all content roles, which takes
        each document once; ``most`` cuts it. One query for the whole run, read before the first
        pole comes out.
        """
        table = self._connection.sql(
            f"SELECT id, pole, source, value, token FROM ({_PEAKS}) "
            "JOIN directions USING (direction) ORDER BY direction, pole, any_place",
            params={"most": most},
        ).to_arrow_table()
        # The same few texts come again and again: each is held once.
        shared = [table.column(name).combine_chunks() for name in ("id", "token", "source")]
        texts = []
        for column in shared:
            coded = column.dictionary_encode()
            values = coded.dictionary.to_pylist()
            texts.append([values[at] for at in coded.indices.to_pylist()])
        ids, tokens, sources = texts
        poles, values = (table.column(name).to_pylist() for name in ("pole", "value"))
        rows = zip(ids, poles, map(Peak, tokens, sources, values), strict=True)
        for (direction, pole), own in groupby(rows, key=lambda row: row[:2]):
            yield direction, POLES[pole], [peak for *_, peak in own]
