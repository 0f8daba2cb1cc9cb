"""What do labels and scores cost beyond the model's own work? With a server that answers at once.

    OMP_NUM_THREADS=1 python bench/labels.py FOLDER [--directions 1000]

Makes up a scanned run (both poles of so many directions, 20 examples of 97 tokens each, 600 random
documents), then labels and scores it as `weightatlas label` and `weightatlas score` do, detection
only, by a language model whose server is a process of its own and sends a fixed answer. Prints the
seconds, the processor time of this process, the requests, and its peak memory (VmHWM) over what it
had before. Run it with two numbers of directions to see what grows with them; the bar is 2,000
poles labelled and detected in 60 seconds on two cores.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import json
import multiprocessing
import os
import pstats
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench.merge import peak_mb  # noqa: E402
from builder.config import Settings, dump_settings  # noqa: E402
from builder.label_stage import make_labels  # noqa: E402
from builder.run_folder import Run, read_run  # noqa: E402
from builder.score_stage import make_scores  # noqa: E402
from builder.store import RunStore, Shard, write_database  # noqa: E402
from tests.store.synthetic import Scale, directions_of, write_shard  # noqa: E402

LABEL = {"label": "a lighthouse", "explanation": "All name it.", "kind": "topic", "confidence": 1}
#: Grades for as many texts as one question may hold; those of texts that are not there are ignored.
VERDICTS = {"verdicts": [{"number": n, "fit": 10 * (n % 2)} for n in range(1, 11)]}


class Instant(asyncio.Protocol):
    """Answers every request with one of two chat completions, by the schema it names."""

    answers: tuple[bytes, bytes] = (b"", b"")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport, self.data = transport, b""

    def data_received(self, data: bytes) -> None:
        self.data += data
        while (end := self.data.find(b"\r\n\r\n")) >= 0:
            head = self.data[:end].lower()
            length = int(head.partition(b"content-length:")[2].split(b"\r\n", 1)[0])
            if len(self.data) < end + 4 + length:
                return
            asked, self.data = self.data[: end + 4 + length], self.data[end + 4 + length :]
            self.transport.write(self.answers[b'"verdicts"' in asked])


def serve(pipe: Connection) -> None:
    """Serves until the process is ended; sends its port through the pipe."""
    Instant.answers = (_response(LABEL), _response(VERDICTS))

    async def run() -> None:
        server = await asyncio.get_running_loop().create_server(Instant, "127.0.0.1", 0)
        pipe.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(run())


def _response(content: object) -> bytes:
    message = {"role": "assistant", "content": json.dumps(content)}
    choice = {"index": 0, "finish_reason": "stop", "message": message}
    usage = {"prompt_tokens": 2500, "completion_tokens": 30, "total_tokens": 2530}
    body = json.dumps({"object": "chat.completion", "choices": [choice], "usage": usage}).encode()
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
    return head.encode() + b"\r\n\r\n" + body


def write_run(folder: Path, directions: int) -> None:
    """A run folder with a database, as a scan leaves it."""
    settings = Settings.model_validate(
        {
            "name": folder.name,
            "model": {"base": "pico/base", "tuned": "pico/tuned"},
            "corpus": {"sources": [{"dataset": "made/up"}]},
        }
    )
    scale = Scale(
        directions=directions,
        roles=(0,),
        documents=2048,
        tokens=256,
        top=settings.scan.top,
        length=2 * settings.scan.window + 1,
        tail=settings.scan.tail,
        samples=(settings.scan.reservoir + settings.scan.held_out) // 4,
        sources=("chat", "images", "code", "wiki", "forum"),
        repeated=0,
    )
    folder.mkdir(parents=True)
    (folder / "run.toml").write_text(dump_settings(settings), encoding="utf-8")
    shards = [Shard(write_shard(folder / "shards", number, scale)) for number in range(4)]
    write_database(
        folder / "run.duckdb",
        directions_of(directions),
        shards,
        settings=settings.scan,
        meta={"scan_fingerprint": "made up", "settings": settings.model_dump(mode="json")},
    )
    shutil.rmtree(folder / "shards")


def measure(folder: Path, port: int, in_flight: int, profile: bool) -> dict[str, float]:
    """Labels and scores the run in a folder, from nothing."""
    shutil.rmtree(folder.with_suffix(".labelled"), ignore_errors=True)
    folder = Path(shutil.copytree(folder, folder.with_suffix(".labelled")))
    run = read_run(
        folder,
        (
            "label.labeler=openai",
            "label.model=instant",
            f"label.base_url=http://127.0.0.1:{port}/v1",
            f"label.concurrency={in_flight}",
            "score.scorers=['detection']",
        ),
    )
    before = peak_mb()
    found = {"MB before": before}
    for name, stage in (("label", make_labels), ("score", make_scores)):
        found |= _measured(name, stage, run, profile)
    with RunStore(run.database_path) as store:
        poles = 2 * len(store.directions())
        labels = sum(label.text is not None for label in store.labels())
        scores = sum(score.f1 is not None for score in store.scores())
        requests = sum(spend.requests for spend in store.spend())
    if not poles == labels == scores:
        raise SystemExit(f"of {poles} poles {labels} have a label and {scores} a score")
    seconds = found["label, seconds"] + found["score, seconds"]
    return {"poles": poles, "requests": requests, "seconds": seconds, **found}


def _measured(
    name: str, stage: Callable[[Run], object], run: Run, profile: bool
) -> dict[str, float]:
    profiler = cProfile.Profile()
    if profile:
        profiler.enable()
    start, used = time.perf_counter(), time.process_time()
    stage(run)
    found = {
        f"{name}, seconds": time.perf_counter() - start,
        f"{name}, processor seconds": time.process_time() - used,
        f"{name}, peak MB": peak_mb(),
    }
    profiler.disable()
    if profile:
        pstats.Stats(profiler).sort_stats("tottime").print_stats(35)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path, help="made-up runs are kept there and used again")
    parser.add_argument("--directions", type=int, default=1000)
    parser.add_argument("--in-flight", type=int, default=16)
    parser.add_argument("--profile", action="store_true", help="also print where the time goes")
    parser.add_argument("--write", action="store_true", help="only make the run up")
    options = parser.parse_args()
    folder = options.folder / f"made-up-{options.directions}"
    if options.write:
        write_run(folder, options.directions)
        return
    if not folder.exists():
        # In a process of its own: this one's peak memory is what is measured.
        subprocess.run([sys.executable, __file__, *sys.argv[1:], "--write"], check=True)
    os.environ |= {"NO_PROXY": "127.0.0.1", "OPENAI_API_KEY": "none"}
    here, there = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(there,), daemon=True)
    server.start()
    try:
        found = measure(folder, here.recv(), options.in_flight, options.profile)
    finally:
        server.terminate()
        server.join()
    print("\n".join(f"{name}: {value:,.1f}" for name, value in found.items()))


if __name__ == "__main__":
    main()
