"""A chat completions endpoint in this process that answers by script, for tests of the client."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

GOOD = {
    "label": "words about lighthouses",
    "explanation": "All examples name a lighthouse.",
    "kind": "topic",
    "confidence": 0.9,
}


USAGE = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}


@dataclass(frozen=True)
class Response:
    """What the server sends.

    ``hang`` sends nothing until the server closes; ``reset`` breaks the connection; ``cut`` breaks
    it in the middle of the body; ``drip`` sends a byte now and then, after so many seconds each,
    of the body or, with ``drip_head``, of the very first line.
    """

    body: str
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    hang: bool = False
    reset: bool = False
    cut: bool = False
    drip: float = 0.0
    drip_head: bool = False


@dataclass
class Endpoint:
    """A running server: its address, the requests it got, and how it answers (one at a time)."""

    url: str
    answer: Callable[[int, dict[str, Any]], Response]
    requests: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)


def completion(
    content: str | None = None,
    *,
    finish_reason: str = "stop",
    refusal: str | None = None,
    choices: int = 1,
    usage: Any = USAGE,
) -> Response:
    """A chat completion; GOOD as JSON unless other content is given."""
    text = json.dumps(GOOD) if content is None else content
    message = {"role": "assistant", "content": text, "refusal": refusal}
    choice = {"finish_reason": finish_reason, "message": message}
    return Response(
        json.dumps(
            {
                "id": "c1",
                "object": "chat.completion",
                "created": 0,
                "model": "scripted",
                "choices": [{"index": index} | choice for index in range(choices)],
                "usage": usage,
            }
        )
    )


def error(status: int, message: str, code: str = "", **headers: str) -> Response:
    """An error body as these endpoints send it; header names with _ for -."""
    # The client would wait for seconds between attempts; the server may ask for less.
    asked = {"retry-after-ms": "1"} | {
        name.replace("_", "-"): text for name, text in headers.items()
    }
    return Response(
        json.dumps({"error": {"message": message, "code": code or None}}), status, asked
    )


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: object, client_address: object) -> None:
        """Nothing: clients go away, and a reset connection cannot be shut down."""


@contextlib.contextmanager
def serving(answer: Callable[[int, dict[str, Any]], Response]) -> Iterator[Endpoint]:
    """A server on a free local port; ``answer`` gets the request's number from 0 and its body."""
    closing = threading.Event()
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            with lock:
                number = len(endpoint.requests)
                endpoint.requests.append(body)
                endpoint.keys.append(self.headers["authorization"])
                response = endpoint.answer(number, body)
            if response.hang:
                closing.wait(30)
                self.close_connection = True
                return
            if response.reset:
                linger = struct.pack("ii", 1, 0)
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                self.close_connection = True
                return
            data = response.body.encode("utf-8")
            if response.drip_head:
                self._drip(b"HTTP/1.1 200 OK\r\n", response.drip)
                return
            self.send_response(response.status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            for name, text in response.headers.items():
                self.send_header(name, text)
            self.end_headers()
            if response.drip:
                self._drip(data, response.drip)
                return
            self.close_connection |= response.cut
            self.wfile.write(data[: len(data) // 2] if response.cut else data)

        def _drip(self, data: bytes, pause: float) -> None:
            self.close_connection = True
            with contextlib.suppress(OSError):  # the client went away
                for byte in data:
                    self.wfile.write(bytes([byte]))
                    if closing.wait(pause):
                        return

        def log_message(self, *args: object) -> None:
            """Nothing: the tests look at the requests."""

    server = _Server(("127.0.0.1", 0), Handler)
    endpoint = Endpoint(f"http://127.0.0.1:{server.server_address[1]}/v1", answer)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield endpoint
    finally:
        closing.set()
        server.shutdown()
        server.server_close()
        thread.join(10)
