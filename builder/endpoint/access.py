"""Where is the endpoint, and with which key may it be asked?

The key comes from the environment variable that the settings name and goes into the request's
header, nowhere else. Servers quote keys in their errors, so it is cut out of everything that comes
back before anything reads it.
"""

from __future__ import annotations

import functools
import os
import re
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

from builder.config import LabelSettings, public_name
from builder.errors import LabelerError, printable, shown

#: Sent where an endpoint of one's own wants no key; servers like vLLM accept anything.
NO_KEY = "no-key"
#: Shorter keys are placeholders.
SHORTEST_SECRET = 8
#: Of a character that was escaped four times over.
_MOST_BACKSLASHES = 15
#: The host whose prices the shipped table holds, and which is asked where no other is named.
DEFAULT_HOST = "api.openai.com"


@dataclass(frozen=True, slots=True)
class Access:
    """An endpoint, the model asked for there, and all else that shapes a request but the question.

    ``base_url`` empty means the client's own default (``OPENAI_BASE_URL``); ``api_key_env`` is the
    name of the environment variable with the key; ``timeout`` is for one request, in seconds.
    """

    model: str
    base_url: str = ""
    api_key_env: str = "OPENAI_API_KEY"
    temperature: float | None = None
    timeout: float = 60.0

    @classmethod
    def of(cls, settings: LabelSettings) -> Access:
        """The endpoint that labels are asked of."""
        return cls(
            model=settings.model,
            base_url=settings.base_url,
            api_key_env=settings.api_key_env,
            temperature=settings.temperature,
            timeout=settings.timeout,
        )

    @property
    def public_model(self) -> str:
        """The model as it may be published: of a path only its last part."""
        is_path = self.model.startswith(("/", "~", ".", "\\")) or self.model[1:2] == ":"
        return public_name(self.model) if is_path else self.model

    @property
    def address(self) -> str:
        """The address asked; empty for the default one."""
        return self.base_url or os.environ.get("OPENAI_BASE_URL", "")

    @property
    def where(self) -> str:
        """The endpoint as messages show it, without a user name or password in the address."""
        if not self.address:
            return "the default endpoint"
        return _without_user(self.address) or "label.base_url"

    def redirected(self, status: int, location: str) -> LabelerError:
        """What to raise where the endpoint sends a request on to another address."""
        to = _without_user(urljoin(self.address, location)) or "an address that is none"
        return LabelerError(
            f"{self.where}: HTTP {status}: sends requests on to {as_detail(to)}; that is not "
            "followed, because they hold texts of the corpus. If it is right, set label.base_url "
            "to it"
        )

    @property
    def is_default(self) -> bool:
        """Whether the endpoint is the one whose prices the shipped table holds."""
        try:
            return not self.address or urlsplit(self.address).hostname == DEFAULT_HOST
        except ValueError:
            return False

    def key(self) -> str:
        """The key from the environment, empty where an endpoint of one's own needs none.

        Raises LabelerError when the default endpoint has none, or when no header can carry it.
        """
        key = os.environ.get(self.api_key_env, "").strip()
        if not key and not self.address:
            raise LabelerError(
                f"the labeler 'openai' needs a key: put it into the environment variable "
                f"{self.api_key_env}, or set label.base_url to an endpoint of your own"
            )
        if not (key.isascii() and key.isprintable()):
            raise LabelerError(
                f"${self.api_key_env}: a key is printable ASCII; this is something else"
            )
        return key


def _without_user(address: str) -> str:
    """Scheme, host and path of an address; empty where it is none."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return ""
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def without_key(text: str, key: str) -> str:
    """The text with every occurrence of the key cut out, in whatever JSON escapes it is written.

    A reply is JSON within JSON, so the backslash of an escape may be escaped again.
    """
    # Placeholders for servers that want any key ("none", "EMPTY") are words, not secrets.
    return text if len(key) < SHORTEST_SECRET else _spellings(key).sub("***", text)


@functools.lru_cache(maxsize=8)
def _spellings(key: str) -> re.Pattern[str]:
    """What finds a key of printable ASCII. Bounded, because a body may be backslashes only."""
    return re.compile(
        "".join(
            rf"\\{{0,{_MOST_BACKSLASHES}}}(?:{re.escape(character)}|u00(?i:{ord(character):02x}))"
            for character in key
        )
    )


def as_detail(text: str) -> str:
    """Text of a server as a message may quote it: one line, printable, cut to 200 characters."""
    # Cut before the work as well: a body may be megabytes long.
    return shown(printable(" ".join(text[:2000].split())))
