"""Downloads a file once. It is resumed after an interruption and verified by its hash."""

import http.client
import os
import urllib.error
import urllib.request
from pathlib import Path

from filelock import FileLock

from lord_fast.atomic import file_sha256, sync

BLOCK = 1 << 20
TIMEOUT = 30.0
"""Seconds without a byte after which the connection is given up."""
MOST_BROKEN = 5
"""Number of broken connections after which a download fails."""


def download(url: str, file: Path, sha256: str) -> Path:
    """Download a file, unless it is there and undamaged.

    An interrupted download continues where it ended, also in a later process. The file appears
    under its name only when it is complete. One process downloads and others wait for it.

    Args:
        url: Address of the file.
        file: Path of the file. Its folder is created if needed.
        sha256: The file's SHA-256 in hexadecimal, or its first digits.

    Returns:
        `file`.

    Raises:
        OSError: The server cannot be reached, lacks the file, or ends the connection too often. Or
            the file cannot be written.
        ValueError: The server's file has another hash. It is removed.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{file}.lock"):
        if file.is_file() and file_sha256(file).startswith(sha256):
            return file
        part = file.with_name(f"{file.name}.part")
        _fetch(url, part)
        found = file_sha256(part)
        if not found.startswith(sha256):
            part.unlink()
            raise ValueError(f"{url}: its sha256 is {found}, expected {sha256}")
        part.replace(file)
        sync(file.parent)
    return file


def _fetch(url: str, part: Path) -> None:
    """Append what is missing to `part`, over several connections if they break.

    Raises:
        OSError: See `download`.
    """
    for broken in range(MOST_BROKEN):
        try:
            _append(url, part)
            return
        except urllib.error.HTTPError:
            raise
        except (http.client.HTTPException, OSError) as error:
            if isinstance(error, urllib.error.URLError) and not part.is_file():
                raise  # There is no connection at all.
            last = error
            if broken == MOST_BROKEN - 1:
                raise OSError(f"{url}: the connection broke {MOST_BROKEN} times ({last})") from last


def _append(url: str, part: Path) -> None:
    done = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={done}-"} if done else {})
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if done and error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return  # The part is whole. Its hash is compared next.
        raise
    with answer:
        resumed = answer.status == http.HTTPStatus.PARTIAL_CONTENT
        with part.open("ab" if resumed else "wb") as stream:
            while block := answer.read(BLOCK):
                stream.write(block)
            stream.flush()
            os.fsync(stream.fileno())
        missing = answer.length or 0
    if missing:
        raise http.client.IncompleteRead(b"", missing)
