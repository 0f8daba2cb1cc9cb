"""How is a window cut from a document's piece? SQL macros; lists and strings count from 1.

``token_ends`` of a piece become ``token_lengths`` of a window: small numbers, which the database
packs. A reader adds them up again.
"""

from __future__ import annotations

#: ``start`` counts from the piece's first token, ``n`` are the window's tokens.
MACROS = """
CREATE TEMP MACRO window_from(ends, start) AS
    CASE WHEN start = 0 THEN 0 ELSE ends[start]::BIGINT END;
CREATE TEMP MACRO window_text(text, ends, start, n) AS
    substring(text, window_from(ends, start) + 1,
              ends[start + n]::BIGINT - window_from(ends, start));
CREATE TEMP MACRO window_lengths(ends, start, n) AS
    list_transform(ends[start + 1 : start + n], lambda e, i: (
        e::BIGINT - CASE WHEN i + start = 1 THEN 0 ELSE ends[i + start - 1]::BIGINT END)::UINTEGER);
"""
