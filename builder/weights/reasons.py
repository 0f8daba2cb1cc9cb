"""What did a library complain about, in one line that fits into a message of ours?"""

from __future__ import annotations

from builder.errors import shown


def reason(error: BaseException) -> str:
    """The first line of an error's text, cut after 200 characters; else its type."""
    text = str(error).strip()
    return shown(text.splitlines()[0]) if text else type(error).__name__
