"""A site is served as hosts serve it, on this machine alone."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder.errors import ConfigError
from builder.publish.preview import preview_server


@pytest.fixture
def site(tmp_path: Path) -> Path:
    folder = tmp_path / "site"
    (folder / "m").mkdir(parents=True)
    (folder / "index.html").write_text("home", encoding="utf-8")
    (folder / "m" / "one.html").write_text("one", encoding="utf-8")
    (folder / "404.html").write_text("not here ☽", encoding="utf-8")
    (tmp_path / "secret.txt").write_text("secret")
    return folder


@pytest.fixture
def port(site: Path) -> Iterator[int]:
    server = preview_server(site, 0)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


def asked(port: int, path: str, method: str = "GET") -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request(method, path)
    answer = connection.getresponse()
    found = answer.status, answer.read().decode("utf-8")
    connection.close()
    return found


def test_pages_are_served_and_what_is_not_there_gets_the_page_of_the_site(port: int) -> None:
    assert asked(port, "/") == (200, "home")
    assert asked(port, "/m/one.html?q=1") == (200, "one")
    assert asked(port, "/m/two.html") == (404, "not here ☽")
    assert asked(port, "/m/two.html", "HEAD") == (404, "")
    assert asked(port, "/m/") == (404, "not here ☽"), "no list of files"
    assert asked(port, "/../secret.txt") == (404, "not here ☽")
    assert asked(port, "/%2e%2e/secret.txt") == (404, "not here ☽")
    assert asked(port, "/", "POST")[0] == 501


def test_a_site_without_such_a_page_has_the_plain_answer(site: Path, port: int) -> None:
    (site / "404.html").unlink()
    status, text = asked(port, "/nothing.html")
    assert status == 404
    assert "not here" not in text


def test_what_cannot_be_served_is_an_error_of_the_request(site: Path, port: int) -> None:
    with pytest.raises(ConfigError, match="holds no site"):
        preview_server(site / "m", 0)
    with pytest.raises(ConfigError, match=f"port {port} cannot be used"):
        preview_server(site, port)
    with pytest.raises(ConfigError, match="cannot be used"):
        preview_server(site, 700_000)
