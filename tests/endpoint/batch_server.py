"""An endpoint for files and batches in this process, that answers by script."""

from __future__ import annotations

import contextlib
import email
import email.policy
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

#: Of one line of requests: (status, body), None for one that is left out.
Answer = Callable[[dict[str, Any]], tuple[int, Any] | None]


@dataclass
class BatchServer:
    """What was handed over: files by id, batches in order; ``looks`` until one has ended.

    So many creations are answered with an error (``unmade``), or not at all although the batch is
    made (``unconfirmed``). ``live`` counts questions asked one by one, ``embedded`` those for
    embeddings.
    """

    url: str
    answer: Answer
    status: str = "completed"
    looks: int = 2
    said: str = "too many tokens"
    files: dict[str, bytes] = field(default_factory=dict)
    batches: list[dict[str, Any]] = field(default_factory=list)
    seen: int = 0
    unmade: int = 0
    unconfirmed: int = 0
    creations: int = 0
    live: int = 0
    embedded: int = 0
    redirects_to: str = ""
    broken: set[str] = field(default_factory=set)

    def lines(self, number: int) -> list[dict[str, Any]]:
        """The requests of a batch."""
        return [json.loads(line) for line in self.files[f"file-{number}"].splitlines()]

    def create(self, file: str) -> dict[str, Any]:
        """A new batch of a file."""
        number = len(self.batches)
        n = len(self.files[file].splitlines())
        counts = {"completed": 0, "failed": 0, "total": n}
        batch = {
            "id": f"batch_{number}", "object": "batch", "endpoint": "/v1/chat/completions",
            "completion_window": "24h", "created_at": 0, "input_file_id": file,
            "status": "validating", "request_counts": counts,
        }  # fmt: skip
        self.batches.append(batch)
        return batch

    def post(self, path: str, content_type: str, data: bytes) -> tuple[Any, int] | None:
        """What is sent back, with its status; None where the connection breaks."""
        if self.redirects_to:
            return {}, 307
        if path in self.broken:
            return {"error": {"message": "no such thing"}}, 404
        if path == "/v1/files":
            name = f"file-{sum(name.startswith('file-') for name in self.files)}"
            self.files[name] = _uploaded(content_type, data)
            return {"id": name, "object": "file", "purpose": "batch"}, 200
        if path == "/v1/chat/completions":
            self.live += 1
            return completion_body("live"), 200
        if path == "/v1/embeddings":
            self.embedded += 1
            texts = json.loads(data)["input"]
            rows = [{"index": n, "embedding": [len(text), 9]} for n, text in enumerate(texts)]
            return {"data": rows, "usage": {"prompt_tokens": len(data)}}, 200
        self.creations += 1
        if self.unmade:
            self.unmade -= 1
            return {"error": {"message": "try again"}}, 503
        batch = self.create(json.loads(data)["input_file_id"])
        self.unconfirmed -= 1
        return (batch, 200) if self.unconfirmed < 0 else None

    def look(self, batch_id: str) -> dict[str, Any]:
        """A batch, which ends when it was looked at often enough."""
        batch = next(batch for batch in self.batches if batch["id"] == batch_id)
        self.seen += 1
        if self.seen < self.looks:
            return batch | {"status": "in_progress"}
        good: list[str] = []
        bad: list[str] = []
        for line in self.files[batch["input_file_id"]].splitlines():
            request = json.loads(line)
            found = self.answer(request)
            if found is None:
                continue
            status, body = found
            response = {"status_code": status, "request_id": "r", "body": body}
            row = {
                "id": "x",
                "custom_id": request["custom_id"],
                "response": response,
                "error": None,
            }
            (good if status == 200 else bad).append(json.dumps(row))
        names = {"output_file_id": good[::-1], "error_file_id": bad}
        for name, rows in names.items():
            if rows:
                batch[name] = f"{name}-{batch_id}"
                self.files[batch[name]] = "\n".join(rows).encode()
        batch["status"] = self.status
        if self.status == "failed":
            batch["errors"] = {"object": "list", "data": [{"message": self.said}]}
        return batch


def completion_body(text: str) -> dict[str, Any]:
    """The body of a chat completion."""
    message = {"role": "assistant", "content": text}
    return {
        "id": "c", "object": "chat.completion", "created": 0, "model": "m",
        "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
        "usage": {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120},
    }  # fmt: skip


def _uploaded(content_type: str, data: bytes) -> bytes:
    head = f"content-type: {content_type}\r\n\r\n".encode()
    form = email.message_from_bytes(head + data, policy=email.policy.HTTP)
    found: Any = {
        part.get_param("name", header="content-disposition"): part for part in form.iter_parts()
    }
    payload: bytes = found["file"].get_payload(decode=True)
    return payload


@contextlib.contextmanager
def serving_batches(answer: Answer) -> Iterator[BatchServer]:
    """A server of files and batches on a free local port."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            data = self.rfile.read(int(self.headers["content-length"]))
            found = server.post(self.path, self.headers["content-type"], data)
            if found is None:
                self.close_connection = True
            else:
                self._send(*found)

        def do_GET(self) -> None:
            parts = self.path.partition("?")[0].split("/")[2:]
            if parts[0] == "files":
                self._send(server.files[parts[1]])
            elif len(parts) == 1:
                self._send({"object": "list", "data": server.batches, "has_more": False})
            else:
                self._send(server.look(parts[1]))

        def _send(self, value: Any, status: int = 200) -> None:
            data = value if isinstance(value, bytes) else json.dumps(value).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            if server.redirects_to:
                self.send_header("location", server.redirects_to)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args: object) -> None:
            """Nothing."""

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    server = BatchServer(f"http://127.0.0.1:{http.server_address[1]}/v1", answer)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join(10)
