"""A chat completions endpoint in this process that answers by script, for tests of the client."""

from __future__ import annotations

import contextlib
import json
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


@dataclass(frozen=True)
class Response:
    """What the server sends; ``hang`` sends nothing until the server closes."""

    body: str
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    hang: bool = False


@dataclass
class Endpoint:
    """A running server: its address, the requests it got, and how it answers."""

    url: str
    answer: Callable[[int, dict[str, Any]], Response]
    requests: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)


def completion(
    content: str | None = None,
    *,
    finish_reason: str = "stop",
    refusal: str | None = None,
) -> Response:
    """A chat completion; GOOD as JSON unless other content is given."""
    text = json.dumps(GOOD) if content is None else content
    message = {"role": "assistant", "content": text, "refusal": refusal}
    return Response(
        json.dumps(
            {
                "id": "c1",
                "object": "chat.completion",
                "created": 0,
                "model": "scripted",
                "choices": [{"index": 0, "finish_reason": finish_reason, "message": message}],
                "usage": {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120},
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


@contextlib.contextmanager
def serving(answer: Callable[[int, dict[str, Any]], Response]) -> Iterator[Endpoint]:
    """A server on a free local port; ``answer`` gets the request's number from 0 and its body."""
    closing = threading.Event()
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

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
            data = response.body.encode("utf-8")
            self.send_response(response.status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            for name, text in response.headers.items():
                self.send_header(name, text)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args: object) -> None:
            """Nothing: the tests look at the requests."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
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
