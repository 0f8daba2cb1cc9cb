"""How does one request get to the server and its body back, within its time? By the openai client.

Requests run on one event loop in a thread of its own, because only there can a deadline be set for
all of a request: the timeouts of a socket begin anew with every byte, so a server that sends one
now and then would hold a thread for ever. The body is read up to a limit, and its JSON is not
turned into the client's own classes, which would cost more than all the rest.

Whoever calls decides what is tried again.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from typing import Any

import httpx2
import openai

from builder.endpoint.access import NO_KEY, Access

#: Seconds until a connection must stand.
CONNECT_TIMEOUT = 15.0


class UnreadError(Exception):
    """A body that could not be read to its end, with the status and headers it came with."""

    def __init__(self, status: int, headers: Mapping[str, str]) -> None:
        super().__init__(status)
        self.status = status
        self.headers = headers


class TooLongError(UnreadError):
    """A body beyond the limit, or packed so that its length cannot be told."""


class CutOffError(UnreadError):
    """A connection that broke after the reply had begun."""


#: Errors that tell that no whole request reached the server. After any other it may have answered.
_UNSENT = (
    httpx2.ConnectError,
    httpx2.ConnectTimeout,
    httpx2.PoolTimeout,
    httpx2.ProxyError,
    httpx2.UnsupportedProtocol,
    httpx2.LocalProtocolError,
    httpx2.WriteError,
)


def was_sent(error: openai.APIConnectionError) -> bool:
    """Whether the server may have the request of which this error came."""
    return not isinstance(error.__cause__, _UNSENT)


class Transport:
    """Requests to one endpoint; safe to share between threads. Use as a context manager."""

    def __init__(self, access: Access, key: str, longest: int) -> None:
        self._access = access
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="endpoint", daemon=True)
        self._thread.start()
        try:
            self._client = asyncio.run_coroutine_threadsafe(
                self._connect(key, longest), self._loop
            ).result()
        except BaseException:
            self._end()
            raise

    async def _connect(self, key: str, longest: int) -> openai.AsyncOpenAI:
        async def bounded(response: httpx2.Response) -> None:
            packed = response.headers.get("content-encoding", "identity") != "identity"
            stream = response.stream
            assert isinstance(stream, httpx2.AsyncByteStream)
            response.stream = _Bounded(stream, 0 if packed else longest, response)

        timeout = self._access.timeout
        return openai.AsyncOpenAI(
            api_key=key or NO_KEY,
            base_url=self._access.base_url or None,
            max_retries=0,
            # Who cannot be reached was asked nothing, which a lack of an answer does not tell.
            timeout=httpx2.Timeout(timeout, connect=min(CONNECT_TIMEOUT, timeout / 2)),
            default_headers={"Accept-Encoding": "identity"},
            http_client=openai.DefaultAsyncHttpxClient(
                # What is asked goes to the host that the settings name and to no other.
                follow_redirects=False,
                event_hooks={"response": [bounded]},
                # Each of our own threads has at most one request on its way.
                limits=httpx2.Limits(max_connections=None, max_keepalive_connections=1000),
            ),
        )

    def post(self, path: str, body: Mapping[str, Any]) -> bytes:
        """The body of the answer.

        Raises TimeoutError when all of it is not there in time, TooLongError, CutOffError, and the
        client's errors for everything else.
        """
        return asyncio.run_coroutine_threadsafe(self._post(path, body), self._loop).result()

    async def _post(self, path: str, body: Mapping[str, Any]) -> bytes:
        try:
            async with asyncio.timeout(self._access.timeout):
                response = await self._client.post(path, cast_to=httpx2.Response, body=dict(body))
                return response.content
        except openai.APITimeoutError as error:
            if isinstance(error.__cause__, httpx2.ConnectTimeout):
                raise
            raise TimeoutError from error

    def close(self) -> None:
        """Closes all connections and ends the thread."""
        asyncio.run_coroutine_threadsafe(self._client.close(), self._loop).result()
        self._end()

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class _Bounded(httpx2.AsyncByteStream):
    """A stream that raises TooLongError after ``longest`` bytes, CutOffError where it breaks."""

    def __init__(
        self, stream: httpx2.AsyncByteStream, longest: int, response: httpx2.Response
    ) -> None:
        self._stream = stream
        self._came_with = response.status_code, response.headers
        self._left = longest

    async def __aiter__(self) -> Any:
        try:
            async for chunk in self._stream:
                self._left -= len(chunk)
                if self._left < 0:
                    raise TooLongError(*self._came_with)
                yield chunk
        except (httpx2.NetworkError, httpx2.ProtocolError) as error:
            raise CutOffError(*self._came_with) from error

    async def aclose(self) -> None:
        await self._stream.aclose()
