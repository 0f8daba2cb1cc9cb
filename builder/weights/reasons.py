"""What did a library complain about, in one line that fits into a message of ours?"""

from __future__ import annotations


def reason(error: BaseException) -> str:
    """The first line of an error's text, at most 200 characters; its type where it has none."""
    text = str(error).strip()
    return text.splitlines()[0][:200] if text else type(error).__name__
