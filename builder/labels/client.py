"""How is an OpenAI-compatible endpoint asked, once per prompt, with every failure typed?

A reply that arrived is kept on disk, one JSON file for each (prompt, model, endpoint, parameters),
whatever is in it: the same prompt is never paid for twice, and a refusal stays a refusal until its
file is deleted. What did not arrive is not kept: a timeout, an HTTP error, a body that is no chat
completion. Waiting and trying again (408, 409, 429, 5xx, ``Retry-After``) is the ``openai``
client's own work.

The key comes from the environment variable that the settings name and goes into the request's
header, nowhere else. Servers quote keys in their errors, so it is cut out of every body that comes
back before anything reads it; causes are cut off errors for the same reason.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from builder.config import LabelSettings
from builder.errors import LabelerError, StoreError, WeightAtlasError
from builder.execute import disk_errors, write_json
from builder.labels.prompts import Prompt
from builder.labels.visible import one_line

if TYPE_CHECKING:
    import openai

logger = logging.getLogger(__name__)

#: Attempts after the first, for what the server may do better next time.
MAX_RETRIES = 4
#: So many requests in a row without an answer end the run: every further one would fail too.
GIVE_UP_AFTER = 25
#: Longer bodies are no answer to what was asked, bytes.
MAX_BODY = 4_000_000
#: Sent where an endpoint of one's own wants no key; servers like vLLM accept anything.
NO_KEY = "no-key"
#: Shorter keys are placeholders.
SHORTEST_SECRET = 8
_FORMAT_WORDS = ("response_format", "json_schema", "guided", "grammar", "structured output")


@dataclass(frozen=True, slots=True)
class Reply:
    """What the model answered: its text, why it ended, its refusal if any, tokens used."""

    content: str
    finish_reason: str
    refusal: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Fault:
    """Why there is no reply: a LabelFailure reason (``timeout http malformed ...``) and details."""

    reason: str
    detail: str


class ChatClient:
    """One endpoint and model, with a cache of replies; safe to share between threads.

    ``schema`` is the JSON schema asked for; an endpoint that does not know such a thing is asked
    without, since the prompt itself describes the answer. The connection is made, and the key read,
    with the first prompt that is not in the cache. Use as a context manager.
    """

    def __init__(
        self,
        settings: LabelSettings,
        cache_dir: Path,
        schema: Mapping[str, Any],
        *,
        max_retries: int | None = None,
    ) -> None:
        self._settings = settings
        self._cache_dir = cache_dir
        self._schema = dict(schema)
        self._max_retries = MAX_RETRIES if max_retries is None else max_retries
        self._lock = threading.Lock()
        self._client: openai.OpenAI | None = None
        self._key = ""
        self._use_schema = True
        self._tokens_parameter = "max_completion_tokens"
        self._answered = False
        self._unanswered = 0
        self._error: WeightAtlasError | None = None

    def __enter__(self) -> ChatClient:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._client is not None:
            self._client.close()

    def cached(self, prompt: Prompt) -> Reply | None:
        """The reply kept for a prompt; None when there is none or its file is damaged."""
        path = self._path(prompt)
        try:
            return Reply(**json.loads(path.read_text(encoding="utf-8"))["reply"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            logger.warning("%s: not a reply (%s); asking again", path, type(error).__name__)
            return None

    def ask(self, prompt: Prompt) -> Reply | Fault:
        """The model's reply, from the cache or the endpoint, or why there is none.

        Raises LabelerError when every other prompt would fail as well: no key, key or model not
        accepted (401, 403, 404), nobody at that address, quota used up, or GIVE_UP_AFTER requests
        in a row unanswered.
        """
        kept = self.cached(prompt)
        if kept is not None:
            return kept
        if self._error is not None:
            raise self._error
        try:
            result = self._request(prompt)
            if isinstance(result, Reply):
                self._keep(prompt, result)
            self._note(result)
        except WeightAtlasError as error:
            # Threads that are still to begin stop here instead of paying for nothing.
            self._error = error
            raise
        return result

    def _note(self, result: Reply | Fault) -> None:
        """Counts requests in a row without an answer; raises LabelerError at the last."""
        with self._lock:
            if isinstance(result, Reply) or result.reason == "content_filter":
                self._answered, self._unanswered = True, 0
                return
            self._unanswered += 1
            if self._unanswered < GIVE_UP_AFTER:
                return
        raise LabelerError(
            f"{self._where()}: {GIVE_UP_AFTER} requests in a row were not answered; the last: "
            f"{result.detail}. Replies so far are kept; run the command again to go on"
        )

    def _request(self, prompt: Prompt) -> Reply | Fault:
        # Half a second that the keyword labeler does not need.
        import openai

        client = self._connect()
        while True:
            use_schema, tokens_parameter = self._use_schema, self._tokens_parameter
            try:
                raw = client.chat.completions.with_raw_response.create(
                    **self._body(prompt, use_schema, tokens_parameter)
                )
                return self._read(raw.content)
            except openai.APITimeoutError:
                return Fault("timeout", f"no answer within {self._settings.timeout:g} s")
            except openai.APIConnectionError:
                if not self._answered:
                    raise LabelerError(
                        f"{self._where()}: no connection; is label.base_url right, and does "
                        "something listen there?"
                    ) from None  # the cause may quote the key
                return Fault("http", "the connection failed")
            except openai.APIStatusError as error:
                status, code = error.status_code, error.code or ""
                said = self._clean(error.message).lower()
                if not self._adapt(status, said, use_schema, tokens_parameter):
                    return self._refused(status, code, self._clean(error.message))
            except openai.OpenAIError as error:
                return Fault("http", self._clean(f"{type(error).__name__}: {error}"))

    def _adapt(self, status: int, said: str, use_schema: bool, tokens_parameter: str) -> bool:
        """Whether the request should be made again without what the server does not know."""
        if status not in (400, 422):
            return False
        if use_schema and any(word in said for word in _FORMAT_WORDS):
            self._use_schema = False
        elif tokens_parameter == "max_completion_tokens" and tokens_parameter in said:
            self._tokens_parameter = "max_tokens"
        else:
            return False
        logger.info("%s: asking again in an older form: %s", self._where(), said)
        return True

    def _refused(self, status: int, code: str, message: str) -> Fault:
        """The fault of an HTTP status; raises LabelerError where it concerns every prompt."""
        detail = f"HTTP {status}: {message}"
        if code == "content_filter":
            return Fault("content_filter", detail)
        if status in (401, 403, 404) or code == "insufficient_quota":
            raise LabelerError(
                f"{self._where()}: {detail}; check label.base_url, label.model "
                f"({self._settings.model!r}) and the key in ${self._settings.api_key_env}"
            ) from None
        return Fault("timeout" if status == 408 else "http", detail)

    def _body(self, prompt: Prompt, use_schema: bool, tokens_parameter: str) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self._settings.model,
            "messages": [
                {"role": "system", "content": prompt.system},
                {"role": "user", "content": prompt.user},
            ],
            tokens_parameter: self._settings.max_completion_tokens,
        }
        if self._settings.temperature is not None:
            body["temperature"] = self._settings.temperature
        if use_schema:
            body["response_format"] = {
                "type": "json_schema",
                "json_schema": {"name": "label", "strict": True, "schema": self._schema},
            }
        return body

    def _read(self, body: bytes) -> Reply | Fault:
        """The reply in a response body; a fault when it is no chat completion."""
        if len(body) > MAX_BODY:
            return Fault("malformed", f"a body of {len(body)} bytes")
        text = self._hide_key(body.decode("utf-8", "replace"))
        try:
            table = json.loads(text)
            choice = table["choices"][0]
            message = choice["message"]
            usage = table.get("usage") or {}
            return Reply(
                content=_string(message.get("content")),
                finish_reason=_string(choice.get("finish_reason")),
                refusal=_string(message.get("refusal")),
                prompt_tokens=_count(usage.get("prompt_tokens")),
                completion_tokens=_count(usage.get("completion_tokens")),
            )
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            return Fault("malformed", f"not a chat completion: {self._clean(text)}")

    def _connect(self) -> openai.OpenAI:
        import openai

        with self._lock:
            if self._client is None:
                # Before the first request: what cannot be kept would have to be paid again.
                with self._cache_errors():
                    self._cache_dir.mkdir(parents=True, exist_ok=True)
                self._key = self._read_key()
                self._client = openai.OpenAI(
                    api_key=self._key or NO_KEY,
                    base_url=self._settings.base_url or None,
                    timeout=self._settings.timeout,
                    max_retries=self._max_retries,
                )
            return self._client

    def _read_key(self) -> str:
        name = self._settings.api_key_env
        key = os.environ.get(name, "").strip()
        if not key and not self._base_url():
            raise LabelerError(
                f"the labeler 'openai' needs a key: put it into the environment variable {name}, "
                "or set label.base_url to an endpoint of your own"
            )
        if not (key.isascii() and key.isprintable()):
            raise LabelerError(f"${name}: a key is printable ASCII; this is something else")
        return key

    def _base_url(self) -> str:
        return self._settings.base_url or os.environ.get("OPENAI_BASE_URL", "")

    def _where(self) -> str:
        """The endpoint as messages show it, without a user name or password in the address."""
        base_url = self._base_url()
        if not base_url:
            return "the default endpoint"
        try:
            parts = urlsplit(base_url)
        except ValueError:
            return "label.base_url"
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"

    def _hide_key(self, text: str) -> str:
        # Placeholders for servers that want any key ("none", "EMPTY") are words, not secrets.
        if len(self._key) < SHORTEST_SECRET:
            return text
        return text.replace(self._key, "***").replace(json.dumps(self._key)[1:-1], "***")

    def _clean(self, text: str) -> str:
        return one_line(self._hide_key(text), 200)

    def _path(self, prompt: Prompt) -> Path:
        key = json.dumps([prompt.hash, *self._parameters().values()], ensure_ascii=True)
        return self._cache_dir / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"

    def _parameters(self) -> dict[str, Any]:
        """All that shapes a reply besides the prompt."""
        return {
            "model": self._settings.model,
            "endpoint": self._where(),
            "temperature": self._settings.temperature,
            "max_completion_tokens": self._settings.max_completion_tokens,
            "schema": self._schema,
        }

    def _keep(self, prompt: Prompt, reply: Reply) -> None:
        """Puts a reply on disk, whole or not at all; raises StoreError when it cannot."""
        table = {"prompt_hash": prompt.hash, **self._parameters(), "reply": asdict(reply)}
        # One at a time: two poles with the same texts have the same file.
        with self._lock, self._cache_errors():
            write_json(self._path(prompt), table)

    @contextlib.contextmanager
    def _cache_errors(self) -> Iterator[None]:
        try:
            with disk_errors(self._cache_dir):
                yield
        except OSError as error:
            raise StoreError(f"{self._cache_dir}: replies cannot be kept here: {error}") from error


def _string(value: object) -> str:
    return value if isinstance(value, str) else ""


def _count(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0
