"""A file over http(s): resumed where an earlier try broke off, and given its name only when its hash is right."""

import http.client
import os
import shutil
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from taxonet._version import __version__
from taxonet.console import Listener
from taxonet.errors import DownloadError, UsageError
from taxonet.weights.checkpoint_files import sha256_of

MIRROR = "TAXONET_MIRROR"
TIMEOUT = 30  # seconds without a byte
CHUNK = 1 << 20
PARTIAL, BEYOND_THE_END = 206, 416
REFUSALS = {
    401: "the server wants a login (401)",
    403: "the server refuses it (403)",
    404: "the server has no such file (404)",
    410: "the server has that file no more (410)",
}


def mirrored(url: str) -> str:
    """The address that is asked: under TAXONET_MIRROR, if set, as MIRROR/host/path."""
    mirror = os.environ.get(MIRROR, "").rstrip("/")
    if not mirror:
        return url
    if not mirror.startswith(("http://", "https://")):
        raise UsageError(f"{MIRROR} is '{mirror}', it must begin with http:// or https://")
    parts = urllib.parse.urlsplit(url)
    return f"{mirror}/{parts.netloc}{parts.path}"


def download(url: str, target: Path, sha256: str, listener: Listener) -> None:
    """Bring `url` to `target`, unless it is there.

    What has arrived stands in `target`.part until it is whole: the next call goes on from there. Two processes do not
    disturb each other, the second waits for the first and uses its file.

    Args:
        url: what the catalogue says; `TAXONET_MIRROR` redirects it.
        target: the file to write; it appears in one step.
        sha256: its hash in hexadecimal, or the first digits of it.
        listener: who follows the progress.

    Raises:
        DownloadError: the server cannot be reached, refuses, breaks off or sends something else.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with alone(target, listener):
        if target.is_file():
            return
        part = target.with_name(f"{target.name}.part")
        try:
            _transfer(mirrored(url), part, listener)
        except _BeyondTheEndError:
            pass  # only the hash can tell whether what is there is the whole file
        finally:
            listener.finish()
        check_hash(part, sha256, url)
        with part.open("rb+") as handle:
            os.fsync(handle.fileno())
        part.replace(target)


def check_hash(file: Path, sha256: str, origin: str) -> None:
    """Raise DownloadError, and remove the file, where its SHA-256 does not begin with `sha256`."""
    found = sha256_of(file)
    if found.startswith(sha256):
        return
    size = file.stat().st_size
    file.unlink()
    raise DownloadError(
        f"what came from {origin} has the SHA-256 {found} and should have {sha256}{'…' if len(sha256) < 64 else ''}, "
        f"so its {size:,} bytes were removed; try again, and if it stays so, something on the way replaces the file"
    )


@contextmanager
def alone(target: Path, listener: Listener) -> Iterator[None]:
    """Hold the lock of `target` for the block; another process that wants it waits."""
    from filelock import FileLock, Timeout

    lock = FileLock(target.with_name(f"{target.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        listener.say(f"another process works on {target.name}, waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


class _BeyondTheEndError(Exception):
    """The server has no bytes after those that are there."""


def _transfer(url: str, part: Path, listener: Listener) -> None:
    have = part.stat().st_size if part.is_file() else 0
    with _opened(url, have) as answer:
        resumed = answer.status == PARTIAL and answer.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        have = have if resumed else 0  # a server without ranges sends everything
        length = answer.headers.get("Content-Length", "")
        total = have + int(length) if length.isdigit() else None
        if total is not None:
            _check_space(part, total - have)
        listener.start(part.stem, total or 0, in_bytes=True)
        with part.open("ab" if have else "wb") as file:
            done = _copy(answer, file, have, listener)
    if total is not None and done < total:
        raise DownloadError(_broken(url, done, total))


def _copy(answer: http.client.HTTPResponse, file: BinaryIO, done: int, listener: Listener) -> int:
    """Write what arrives; a broken connection ends it as the end of the file does, the caller counts."""
    with suppress(http.client.HTTPException, ConnectionError, TimeoutError):
        while chunk := answer.read(CHUNK):
            file.write(chunk)
            done += len(chunk)
            listener.advance(done)
    return done


@contextmanager
def _opened(url: str, have: int) -> Iterator[http.client.HTTPResponse]:
    headers = {"User-Agent": f"taxonet/{__version__}"} | ({"Range": f"bytes={have}-"} if have else {})
    host = urllib.parse.urlsplit(url).netloc
    try:
        answer = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == BEYOND_THE_END and have:
            raise _BeyondTheEndError from None
        refusal = REFUSALS.get(error.code, f"the server answers with the error {error.code}, try again later")
        raise DownloadError(f"cannot get {url}: {refusal}") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise DownloadError(unreachable(host, error)) from error
    with answer:
        yield answer


def unreachable(host: str, error: BaseException) -> str:
    """The sentence for a server that does not answer."""
    reason = getattr(error, "reason", None) or error
    return (
        f"cannot reach {host} ({reason}): check the network and the proxy, or set {MIRROR} (files at a URL) or "
        "HF_ENDPOINT (the hub) to a server that can be reached"
    )


def _broken(url: str, done: int, total: int) -> str:
    return f"the transfer of {url} broke off after {done:,} of {total:,} bytes; the same command goes on from there"


def _check_space(part: Path, wanted: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if wanted > free:
        raise DownloadError(f"{part.stem} needs {wanted:,} bytes and {free:,} are free in {part.parent}")
