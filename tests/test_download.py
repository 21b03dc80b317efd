"""Tests that a download is resumed, verified and written whole. A local server serves the file."""

import http.server
import re
import threading
from hashlib import sha256
from typing import ClassVar

import pytest

from lord_fast import download as module
from lord_fast.download import download

CONTENT = bytes(range(256)) * 4096
HASH = sha256(CONTENT).hexdigest()


class Server(http.server.BaseHTTPRequestHandler):
    """Serves CONTENT and ends each connection after `most` bytes."""

    most = len(CONTENT)
    ranges = True
    content = CONTENT
    asked: ClassVar[list[str | None]] = []

    def do_GET(self):
        wanted = self.headers.get("Range")
        self.asked.append(wanted)
        start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1]) if wanted and self.ranges else 0
        if start >= len(self.content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(self.content) - start))
        self.end_headers()
        self.wfile.write(self.content[start : start + self.most])
        self.close_connection = True

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    kind = type("Fresh", (Server,), {"asked": []})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), kind) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield kind, f"http://127.0.0.1:{httpd.server_port}/file"
        httpd.shutdown()


def test_a_broken_connection_is_resumed(server, tmp_path):
    kind, url = server
    kind.most = len(CONTENT) // 3 + 1
    file = download(url, tmp_path / "new" / "file", HASH)
    assert file.read_bytes() == CONTENT
    assert kind.asked == [None, f"bytes={kind.most}-", f"bytes={2 * kind.most}-"]
    assert not (tmp_path / "new" / "file.part").exists()


def test_a_later_process_resumes_and_a_whole_file_is_not_asked_for(server, tmp_path, monkeypatch):
    kind, url = server
    kind.most = 1000
    monkeypatch.setattr(module, "MOST_BROKEN", 2)
    with pytest.raises(OSError, match="broke 2 times"):
        download(url, tmp_path / "file", HASH)
    assert not (tmp_path / "file").exists()
    kind.most = len(CONTENT)
    download(url, tmp_path / "file", HASH[:8])
    assert kind.asked == [None, "bytes=1000-", "bytes=2000-"]
    download(url, tmp_path / "file", HASH)
    assert len(kind.asked) == 3


def test_a_server_without_ranges_starts_again(server, tmp_path):
    kind, url = server
    kind.ranges = False
    (tmp_path / "file.part").write_bytes(b"old")
    assert download(url, tmp_path / "file", HASH).read_bytes() == CONTENT


def test_another_file_is_refused_and_removed(server, tmp_path):
    kind, url = server
    kind.content = CONTENT[:-1] + b"x"
    with pytest.raises(ValueError, match=f"expected {HASH}"):
        download(url, tmp_path / "file", HASH)
    assert not (tmp_path / "file.part").exists()
    assert not (tmp_path / "file").exists()


def test_a_whole_part_and_a_damaged_file_are_mended(server, tmp_path):
    _, url = server
    (tmp_path / "file.part").write_bytes(CONTENT)
    assert download(url, tmp_path / "file", HASH).read_bytes() == CONTENT
    (tmp_path / "file").write_bytes(b"damaged")
    assert download(url, tmp_path / "file", HASH).read_bytes() == CONTENT
