"""How does a site look once it is published? Serves a folder on this machine as such hosts do.

Pages open from disk as well; what needs a server is an address that leads nowhere, which gets the
site's own 404 page, and whatever a browser keeps from files.
"""

from __future__ import annotations

import functools
import http
import http.server
from pathlib import Path

from builder.errors import ConfigError


class _Handler(http.server.SimpleHTTPRequestHandler):
    """Files of a folder, and its 404.html for what is not there."""

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        missing = Path(self.directory) / "404.html"
        if code != http.HTTPStatus.NOT_FOUND or not missing.is_file():
            super().send_error(code, message, explain)
            return
        content = missing.read_bytes()
        self.send_response(code)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def list_directory(self, path: object) -> None:
        """Nothing: hosts show no lists of files."""
        self.send_error(http.HTTPStatus.NOT_FOUND)


def preview_server(site: Path, port: int) -> http.server.ThreadingHTTPServer:
    """A server of a site on this machine alone, to be run by the caller; port 0 takes a free one.

    Raises ConfigError if there is no site, or the port cannot be used.
    """
    if not (site / "index.html").is_file():
        raise ConfigError(f"{site}: holds no site; run `weightatlas build` or `demo` first")
    handler = functools.partial(_Handler, directory=str(site))
    try:
        return http.server.ThreadingHTTPServer(("127.0.0.1", port), handler)
    except (OSError, OverflowError) as error:
        raise ConfigError(f"port {port} cannot be used: {error}; try --port") from error
