"""Labels by a real server: ``transformers serve`` with one of the small models of this package.

The model knows nothing of the question, so what it says is nonsense; what becomes of nonsense is
what is tested.
"""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder import cli
from builder.records import Label, LabelFailure
from builder.store import RunStore
from tests import micro
from tests.scanned import run_of, scan, write_texts

MODEL = Path(__file__).parent.parent / "builder" / "organisms" / "pairs" / "llama-tuned"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a running server, which ends with the tests."""
    log = tmp_path_factory.mktemp("serve") / "log"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(MODEL)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with log.open("w") as output:
        child = subprocess.Popen(command, stdout=output, stderr=output, env=environment)
        try:
            _wait_for(url, child, log)
            yield f"{url}/v1"
        finally:
            child.kill()
            child.wait(30)


def _wait_for(url: str, child: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(600):
        if child.poll() is not None:
            break
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=1):
                return
        except OSError:
            time.sleep(0.2)
    pytest.fail(f"transformers serve did not start: {log.read_text()[-2000:]}")


@pytest.mark.slow
def test_a_real_server_is_asked_over_http_and_its_nonsense_ends_as_the_rules_say(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    rng = random.Random(3)
    source = write_texts(tmp_path / "a.jsonl", [micro.sentence(rng, 9) for _ in range(40)])
    run = run_of(tmp_path / "run", source)
    scan(run)
    arguments = ["label", str(run.folder), "--model", str(MODEL), "--base-url", server]
    for setting in (
        "label.max_completion_tokens=24",
        "label.examples=1",
        "label.contrast=0",
        "label.concurrency=2",
        "label.price_input=0",
        "label.price_output=0",
    ):
        arguments += ["--set", setting]

    code = cli.main([*arguments, "--budget", "1"])
    first = capsys.readouterr().out
    again = cli.main([*arguments, "--budget", "1"])

    with RunStore(run.database_path) as store:
        results: list[Label | LabelFailure] = [*store.labels(), *store.label_failures()]
        (spend,) = store.spend()
    assert len(results) == 8
    assert {result.labeler for result in results} == {"llama-tuned"}
    for result in results:
        if isinstance(result, LabelFailure):
            assert result.reason in ("malformed", "schema", "truncated", "empty")
        # The server counts what it was sent and what it said.
        assert 100 < result.prompt_tokens < 5000
        assert 1 <= result.completion_tokens <= 24
    assert (spend.model, spend.requests, spend.unmetered, spend.cost) == ("llama-tuned", 8, 0, 0)
    assert spend.prompt_tokens == sum(result.prompt_tokens for result in results)
    assert spend.completion_tokens == sum(result.completion_tokens for result in results)
    n_labels = sum(isinstance(result, Label) for result in results)
    assert code == again == (0 if n_labels else 1)
    assert f"{8 - n_labels} failed" in first
    assert str(MODEL.parent) not in json.dumps(store_text(run.database_path))


def store_text(place: Path) -> list[str]:
    """What labelling put into the database, and all facts there, as text."""
    with RunStore(place) as store:
        found = (store.meta(), *store.labels(), *store.label_failures(), *store.spend())
        return [repr(item) for item in found]
