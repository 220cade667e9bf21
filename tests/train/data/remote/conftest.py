"""A web server on this machine, whose faults are switched on, and a cache folder of one's own."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from attfc_train.data.remote import mirror, objects, stores
from attfc_train.urls import SECRETS


class Server(ThreadingHTTPServer):
    """Serves a folder; `log` has the method, the path and the range of every request."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder = folder
        self.log: list[tuple[str, str, str | None]] = []
        self.faults: list[str] = []
        """What happens to the next requests for content: ``drop``, ``short``, an HTTP status, or ``fine``."""
        self.always = ""
        """What happens to every request for content behind them."""
        self.ranges = True
        self.lists = True
        self.authorization = ""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def requests(self, method: str, ending: str = "") -> list[str | None]:
        """The ranges that were asked for."""
        return [range_ for asked, path, range_ in self.log if asked == method and path.partition("?")[0].endswith(ending)]

    def handle_error(self, request, client_address) -> None:
        """A client that has left is no news."""


class Handler(SimpleHTTPRequestHandler):
    server: Server

    def __init__(self, request, address, server) -> None:
        super().__init__(request, address, server, directory=str(server.folder))

    def log_message(self, *_: object) -> None: ...

    def list_directory(self, path):
        if not self.server.lists:
            self.send_error(403)
            return None
        return super().list_directory(path)

    def do_HEAD(self) -> None:
        self.server.log.append(("HEAD", self.path, None))
        if self._is_allowed():
            super().do_HEAD()

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.server.log.append(("GET", self.path, asked))
        path = Path(self.translate_path(self.path))
        if not self._is_allowed():
            return
        if not path.is_file():
            super().do_GET()
            return
        fault = self.server.faults.pop(0) if self.server.faults else self.server.always
        if fault == "drop":
            self.connection.close()
        elif fault.isdigit():
            self.send_error(int(fault))
        else:
            self._send(path, asked if self.server.ranges else None, cut=fault == "short")

    def _is_allowed(self) -> bool:
        if self.server.authorization in ("", self.headers.get("Authorization")):
            return True
        self.send_error(401)
        return False

    def _send(self, path: Path, asked: str | None, cut: bool) -> None:
        content = path.read_bytes()
        first, last = 0, len(content) - 1
        if asked:
            first, last = (int(number) for number in asked.removeprefix("bytes=").split("-"))
            last = min(last, len(content) - 1)
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
        self.send_header("Content-Length", str(last + 1 - first))
        self.send_header("Last-Modified", self.date_time_string(path.stat().st_mtime))
        self.end_headers()
        self.wfile.write(content[first : last + 1 - (5 if cut else 0)])
        if cut:
            self.close_connection = True


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "served").mkdir()
    with Server(tmp_path / "served") as started:
        threading.Thread(target=started.serve_forever, daemon=True).start()
        yield started
        started.shutdown()


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTFC_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv(SECRETS, "[]")
    monkeypatch.setattr(stores, "PAUSES", (0.01, 0.02, 0.03))
    mirror.forget()


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 1,000 bytes, and a bound that holds 40 of them."""
    monkeypatch.setattr(objects, "BLOCK", 1000)
    monkeypatch.setattr(objects, "_LEAST", 16_000)
    monkeypatch.setenv(objects.LIMIT, "160KiB")
