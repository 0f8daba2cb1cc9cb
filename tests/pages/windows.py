"""Windows of any text and tokens, for properties: split characters, hidden ones, long tokens."""

from __future__ import annotations

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st

from builder.pages.spans import LONGEST_TOKEN
from builder.records import ACTIVATION_SCALE, ROLES, Example, Window

#: For properties of such windows: how long one takes says nothing on a machine that is shared.
UNTIMED = settings(deadline=None)

#: What is shown as it is, what is hidden, what joins its neighbours, and what takes two units.
LETTERS = (
    *"ab \n<&\"'é月",
    *"\u0301\u200d\ufe0f❤\U0001f469\U0001f389",
    *"\x00\x1b\u202e\u2028\ue000\U000e0041\ud83c\udf89",
)


def texts(most: int = 4) -> st.SearchStrategy[str]:
    """Short texts, mostly of letters that need care; some hold half a surrogate pair."""
    return st.one_of(
        st.text(st.sampled_from(LETTERS), max_size=most),
        st.text(st.characters(), max_size=most),
    )


#: Tokens: mostly short ones; some that are cut in their middle or take a length of two bytes.
TOKENS = st.one_of(
    texts(),
    texts(),
    st.builds(
        lambda letter, n: letter * n,
        st.sampled_from(("w", "月", "\U0001f389", "\u202e")),
        st.sampled_from((127, 128, LONGEST_TOKEN - 1, LONGEST_TOKEN, LONGEST_TOKEN + 1)),
    ),
)


@st.composite
def windows(draw: st.DrawFn, *, whole: bool = False) -> Window:
    """A window with or without tokens, of which some have no character of their own.

    Unless it is ``whole``, its text may end before its tokens do, or after.
    """
    tokens = draw(st.lists(TOKENS, max_size=8))
    lengths = [len(token) for token in tokens]
    text = "".join(tokens)
    if not whole:
        text = draw(st.sampled_from((text, text[:-1], text[: len(text) // 2], text + "é\u202e")))
    ends = np.cumsum(lengths, dtype=np.uint32) if lengths else np.zeros(0, np.uint32)
    return Window(draw(st.integers(0, 9)), "s", draw(st.integers(0, 99)), text, ends)


@st.composite
def examples(draw: st.DrawFn, *, with_base: bool | None = None) -> Example:
    """An example of such a window, which has at least one token."""
    window = draw(windows(whole=True).filter(lambda window: len(window.token_ends) > 0))
    n = len(window.token_ends)
    values = st.lists(st.integers(-ACTIVATION_SCALE, ACTIVATION_SCALE), min_size=n, max_size=n)
    peak = draw(st.integers(0, n - 1))
    own = np.asarray(draw(values), dtype=np.int16)
    has_base = draw(st.booleans()) if with_base is None else with_base
    base = np.asarray(draw(values), dtype=np.int16) if has_base else None
    roles = draw(st.lists(st.integers(0, len(ROLES) - 1), min_size=n, max_size=n))
    return Example(
        "d", "user", "max", 0, float(own[peak]) / ACTIVATION_SCALE, peak, 0, window, own,
        np.asarray(roles, dtype=np.uint8), base,
    )  # fmt: skip
