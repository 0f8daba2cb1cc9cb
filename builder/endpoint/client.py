"""How is an OpenAI-compatible endpoint asked, once per question, with every failure typed?

A reply that arrived is kept (see ``replies``); what did not arrive is not: a timeout, an HTTP
error, a body that is no chat completion. What the server may do better next time (408, 409, 429,
5xx, a lost connection, no answer in time) is tried again, with growing pauses, or as long as its
``Retry-After`` says, which all threads then wait for. Pauses for one question end after
MAX_WAITING seconds.

Causes are cut off errors, because they may quote the key.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

from builder.endpoint import retries
from builder.endpoint.access import Access, as_detail, without_key
from builder.endpoint.bodies import MAX_BODY, Form, most_usage, older_form, read_body, request_body
from builder.endpoint.budget import Budget
from builder.endpoint.gate import Gate
from builder.endpoint.messages import Fault, Question, Reply
from builder.endpoint.prices import Price
from builder.endpoint.replies import Replies, Usage, key_of
from builder.endpoint.retries import NoReplyError
from builder.errors import LabelerError, WeightAtlasError
from builder.records import Spend

if TYPE_CHECKING:
    from builder.endpoint.transport import Transport

logger = logging.getLogger(__name__)

#: So many questions in a row without an answer end the run: every further one would fail too.
GIVE_UP_AFTER = 25
#: Of a question without a reply where nothing is sent.
NOT_ASKED = Fault("http", "not asked; run the same command again")


_TOO_LONG = f"a body of more than {MAX_BODY} bytes, or a packed one"


class _OtherFormError(Exception):
    """The server does not know a part of the request, which is left out from now on."""


class ChatClient:
    """One endpoint and model: an :class:`~builder.endpoint.messages.Asker` with kept replies.

    ``stage`` is what its requests are counted for. A budget needs a price. The connection is made,
    and the key read, with the first question whose reply is not kept; with ``offline`` there is
    never one, and such a question gets the fault given there for its key (see ``key_of``), or one
    that says so. Use as a context manager.
    """

    _path = "/chat/completions"
    #: The setting that names the model.
    _setting = "label.model"

    def __init__(
        self,
        access: Access,
        replies: Replies,
        *,
        stage: str,
        price: Price | None = None,
        budget: Budget | None = None,
        offline: Mapping[str, Fault] | None = None,
    ) -> None:
        self.price = price
        self.budget = budget or Budget(spent=replies.spent(price))
        self._access = access
        self._replies = replies
        self._stage = stage
        self._offline = offline
        self._lock = threading.Lock()
        self._gate = Gate()
        self._transport: Transport | None = None
        self._key = ""
        self._form = Form()
        self._answered = False
        self._unanswered = 0
        self._error: WeightAtlasError | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._transport is not None:
            self._transport.close()

    def stop(self) -> None:
        """Ends all waiting for the server to be ready again, for when the work is given up."""
        self._gate.stop()

    def spend(self) -> list[Spend]:
        """What the stage has cost so far, by the records of its requests."""
        return self._replies.spend(self._stage)

    def kept(self, question: Question) -> Reply | None:
        """The reply kept for a question; None when there is none."""
        return self._replies.find(key_of(question, self._access))

    def ask(self, question: Question, *, again: bool = False) -> Reply | Fault:
        """The model's reply, kept or new, or why there is none; ``again``: a new one in any case.

        Raises LabelerError when every other question would fail as well: no key, key or model not
        accepted (401, 403, 404), nobody at that address, quota used up, or GIVE_UP_AFTER questions
        in a row unanswered. Raises StoreError when replies cannot be kept.
        """
        reply = None if again else self.kept(question)
        if reply is not None:
            return reply
        if self._offline is not None:
            return self._offline.get(key_of(question, self._access), NOT_ASKED)
        if self._error is not None:
            raise self._error
        try:
            result = self._try_until_answered(question)
            self._note(result)
        except WeightAtlasError as error:
            # Threads that are still to begin stop here instead of paying for nothing.
            self._error = error
            self._gate.stop()
            raise
        return result

    def _note(self, result: Reply | Fault) -> None:
        """Counts questions in a row without an answer; raises LabelerError at the last."""
        with self._lock:
            if isinstance(result, Reply) or result.reason == "content_filter":
                self._answered, self._unanswered = True, 0
                return
            if result.reason == "budget":
                return
            self._unanswered += 1
            if self._unanswered < GIVE_UP_AFTER:
                return
        raise LabelerError(
            f"{self._access.where}: {GIVE_UP_AFTER} requests in a row were not answered; the last: "
            f"{result.detail}. Replies so far are kept; run the command again to go on"
        )

    def _try_until_answered(self, question: Question) -> Reply | Fault:
        """The outcome of the last attempt, with pauses between them."""
        self._connect()
        waited, pause, tries = 0.0, 0.0, 0
        fault = Fault("http", "not asked: the server was not ready for too long")
        while True:
            passed = self._gate.wait(pause, retries.MAX_WAITING - waited)
            if passed is None:
                if self._error is not None:
                    raise self._error
                return fault
            waited += passed
            try:
                return self._attempt(question)
            except _OtherFormError:
                pause = 0.0
            except NoReplyError as failed:
                tries += 1
                again_in = failed.pause(tries)
                if again_in is None and failed.is_lost and not self._answered:
                    raise LabelerError(
                        f"{self._access.where}: no connection; is label.base_url right, and does "
                        "something listen there?"
                    ) from None
                if again_in is None:
                    return failed.fault
                fault, pause = failed.fault, again_in
                if failed.is_busy and failed.after is not None:
                    self._gate.close_for(failed.after)

    def _attempt(self, question: Question) -> Reply | Fault:
        """One request, counted before it is sent. Raises what may ask for another attempt."""
        most = most_usage(question)
        dearest = self._cost(most.prompt_tokens, most.completion_tokens)
        if not self.budget.reserve(dearest):
            return Fault("budget", f"not asked: the budget of ${self.budget.limit:,.2f} is used up")
        cost = 0.0
        try:
            key = key_of(question, self._access)
            request = self._replies.begin(key, self._stage, self._access, most, self.price)
            try:
                text = self._send(question)
            except NoReplyError as failed:
                if failed.may_cost:
                    cost = dearest
                else:
                    self._replies.drop(request)
                raise
            except (WeightAtlasError, _OtherFormError):
                self._replies.drop(request)
                raise
            result, usage = self._read(text, question)
            cost = self._cost(usage.prompt_tokens, usage.completion_tokens)
            if isinstance(result, Reply):
                return self._replies.keep(request, question, self._access, result, self.price)
            self._replies.settle(request, usage, self.price)
            return result
        finally:
            self.budget.settle(dearest, cost)

    def _body(self, question: Question, form: Form) -> Mapping[str, Any]:
        return request_body(question, self._access, form)

    def _read(self, text: str, question: Question) -> tuple[Reply | Fault, Usage]:
        return read_body(text, question)

    def _send(self, question: Question) -> str:
        """The body of the answer, without the key. Raises what is to be done without one."""
        # Half a second that labelling without a language model does not need.
        import openai

        from builder.endpoint.transport import TooLongError, UnreadError, was_sent

        assert self._transport is not None
        form = self._form
        body = self._body(question, form)
        try:
            found = self._transport.post(self._path, body)
        except TimeoutError:
            detail = f"no answer within {self._access.timeout:g} s"
            raise NoReplyError(Fault("timeout", detail), may_cost=True) from None
        except UnreadError as error:
            is_long = isinstance(error, TooLongError)
            detail = _TOO_LONG if is_long else "the connection broke within the reply"
            if error.status >= 300:
                raise self._refused(error.status, "", detail, error.headers, form) from None
            if is_long:
                return detail
            raise NoReplyError(Fault("http", detail), may_cost=True) from None
        except openai.APIStatusError as error:
            said = self._clean(error.message.removeprefix(f"Error code: {error.status_code} - "))
            raise self._refused(
                error.status_code, error.code or "", said, error.response.headers, form
            ) from None  # the cause may quote the key
        except openai.APIConnectionError as error:
            detail = f"the connection failed: {type(error.__cause__).__name__}"
            failed = NoReplyError(Fault("http", detail), is_lost=True, may_cost=was_sent(error))
            raise failed from None
        except openai.OpenAIError as error:
            raise NoReplyError(Fault("http", type(error).__name__)) from None
        return without_key(found.decode("utf-8", "replace"), self._key)

    def _refused(
        self, status: int, code: str, said: str, headers: Mapping[str, str], form: Form
    ) -> Exception:
        """What is to be raised for an HTTP status that is no success."""
        if status < 400:
            location = without_key(headers.get("location", ""), self._key)
            return self._access.redirected(status, location)
        if code == "content_filter":
            return NoReplyError(
                Fault("content_filter", f"HTTP {status}: {said}"), is_momentary=False
            )
        if status in (401, 403, 404) or code == "insufficient_quota":
            return LabelerError(
                f"{self._access.where}: HTTP {status}: {said}; check label.base_url, "
                f"{self._setting} ({self._access.model!r}) and the key in "
                f"${self._access.api_key_env}"
            )
        if status in (400, 422) and self._adapt(said.lower(), form):
            return _OtherFormError()
        return NoReplyError.of_status(status, said, headers)

    def _adapt(self, said: str, form: Form) -> bool:
        """Whether the request should be made again without what the server does not know."""
        other = older_form(form, said)
        if other is None:
            return False
        logger.info("%s: asking again in an older form: %s", self._access.where, said)
        with self._lock:
            if self._form == form:
                self._form = other
        return True

    def _connect(self) -> None:
        """Opens the connection where there is none."""
        from builder.endpoint.transport import Transport

        with self._lock:
            if self._transport is None:
                self._key = self._access.key()
                self._transport = Transport(self._access, self._key, MAX_BODY)

    def _cost(self, prompt_tokens: int, completion_tokens: int) -> float:
        return self.price.of(prompt_tokens, completion_tokens) if self.price else 0.0

    def _clean(self, text: str) -> str:
        return as_detail(without_key(text, self._key))
