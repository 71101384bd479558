"""Tar shards in WebDataset's layout (files of one key together: `key.jpg`, `key.cls`), read picture by picture.

A member is found by its header alone and read later, from any thread, at its place in the file: what waits is a name,
not a picture. A compressed shard is unpacked to a temporary file first.
"""

import bz2
import gzip
import lzma
import os
import shutil
import tarfile
import tempfile
import threading
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from taxonet.data.sources import EXTENSIONS
from taxonet.errors import ImageError
from taxonet.images import Limits
from taxonet.images.source import check_bytes

SHARD_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_OPENERS = ((b"\x1f\x8b", gzip.open), (b"BZh", bz2.open), (b"\xfd7zXZ\0", lzma.open))
_DAMAGE = (OSError, EOFError, zlib.error, lzma.LZMAError)


@dataclass(frozen=True, slots=True)
class Refused:
    """An input that is known to be unreadable before it is read; it is answered with the reason."""

    name: str
    reason: str

    def __str__(self) -> str:
        return self.name

    def read(self, limits: Limits) -> bytes:
        """Raise ImageError with the reason."""
        raise ImageError(self.reason)


class _Shard:
    """An open tar file that many threads read from; closed with its last member."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.damage: str | None = None
        self.lock = threading.Lock()  # of the position in `file`, where it cannot be read without one
        self.file = self._unpacked(path.open("rb"))

    def __del__(self) -> None:
        if hasattr(self, "file"):
            self.file.close()

    def read(self, offset: int, size: int) -> bytes:
        """`size` bytes from `offset` on; fewer where the file ends."""
        if hasattr(os, "pread"):
            return os.pread(self.file.fileno(), size, offset)
        with self.lock:
            self.file.seek(offset)
            return self.file.read(size)

    def _unpacked(self, file: IO[bytes]) -> IO[bytes]:
        start = file.read(6)
        file.seek(0)
        opener = next((opener for sign, opener in _OPENERS if start.startswith(sign)), None)
        if opener is None:
            return file
        plain = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the members
        with file, opener(file, "rb") as packed:
            try:
                shutil.copyfileobj(packed, plain, 2**20)
            except _DAMAGE as error:
                self.damage = f"the shard is damaged, what follows is lost: {error}"
        plain.seek(0)
        return plain


@dataclass(frozen=True, slots=True)
class Member:
    """A picture in a shard; its name is the shard's path, a slash and the name inside."""

    shard: _Shard
    name: str
    offset: int
    size: int

    def __str__(self) -> str:
        return f"{self.shard.path}/{self.name}"

    def read(self, limits: Limits) -> bytes:
        """The encoded picture; ImageError where it is empty, beyond the limits, or cut off."""
        check_bytes(self.size, limits)
        try:
            data = self.shard.read(self.offset, self.size)
        except OSError as error:
            raise ImageError(f"the shard cannot be read: {error.strerror or error}") from None
        if len(data) < self.size:
            raise ImageError("the shard ends in the middle of it")
        return data


def is_shard(path: str | os.PathLike[str]) -> bool:
    """Whether a name is a shard's."""
    return os.fspath(path).lower().endswith(SHARD_SUFFIXES)


def read_shard(path: Path) -> Iterator[Member | Refused]:
    """The pictures of a shard in its order; what else a sample holds is passed over.

    A shard that is missing, damaged or without a picture ends with one entry that says so.
    """
    if path.exists() and not path.is_file():
        yield Refused(str(path), "it is not a regular file")
        return
    count, damage, shard = 0, None, None
    try:
        shard = _Shard(path)
        for entry in _entries(shard):
            count += 1
            yield Member(shard, entry.name.removeprefix("./"), entry.offset_data, entry.size)
    except FileNotFoundError:
        damage = "the file does not exist"
    except tarfile.TarError as error:
        damage = f"the shard is damaged after {count} pictures: {error}" if count else f"it is no tar file: {error}"
    except OSError as error:
        damage = f"the shard cannot be read: {error.strerror or error}"
    if shard and shard.damage:  # of its compression; what the tar lacks follows from it
        damage = shard.damage
    if damage or not count:
        yield Refused(str(path), damage or "the shard holds no pictures")


def _entries(shard: _Shard) -> Iterator[tarfile.TarInfo]:
    with tarfile.open(fileobj=shard.file, mode="r:") as archive:
        while True:
            with shard.lock:
                entry = archive.next()
            if entry is None:
                return
            archive.members = []  # type: ignore[attr-defined]  # it keeps every header otherwise
            name = Path(entry.name)
            if entry.isreg() and not entry.issparse() and _is_shown(name) and name.suffix.lower() in EXTENSIONS:
                yield entry


def _is_shown(name: Path) -> bool:
    return not any(part.startswith(".") for part in name.parts)
