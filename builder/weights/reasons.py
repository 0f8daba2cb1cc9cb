"""What did a library complain about, in one line that fits into a message of ours?"""

from __future__ import annotations


def reason(error: BaseException) -> str:
    """The first line of an error's text, cut after 200 characters; else its type."""
    text = str(error).strip()
    if not text:
        return type(error).__name__
    line = text.splitlines()[0]
    return line if len(line) <= 200 else f"{line[:200]} ..."
