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

from taxonet.data.sources import EXTENSIONS, kind_of
from taxonet.errors import ImageError, nearest_file
from taxonet.figures import counted
from taxonet.images import Limits
from taxonet.images.source import MISSING, check_bytes, read_file

SHARD_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_OPENERS = ((b"\x1f\x8b", gzip.open), (b"BZh", bz2.open), (b"\xfd7zXZ\0", lzma.open))
_ENDS = tuple(EXTENSIONS)
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


class Missing(Refused):
    """A path that was typed and led nowhere when it was looked at; what is wrong with it is found out at its turn."""

    def __init__(self, name: str) -> None:
        super().__init__(name, MISSING)

    def read(self, limits: Limits) -> bytes:
        """Raise ImageError with the reason and the nearest name, or read a file that has come since."""
        if hint := nearest_file(self.name):
            raise ImageError(f"{MISSING}{hint}")
        return read_file(self.name, limits)


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

    What cannot be read is answered at its place, and a shard that is missing, damaged, cut off or without a picture
    ends with one entry that says so.
    """
    if kind_of(path) not in (None, "file"):
        yield Refused(str(path), "it is not a regular file")
        return
    count, damage, shard, archive = 0, None, None, None
    try:
        shard = _Shard(path)
        with tarfile.open(fileobj=shard.file, mode="r:") as archive:
            for entry in _pictures(shard, archive):
                count += 1
                yield _member(shard, entry)
    except FileNotFoundError:
        damage = MISSING
    except OSError as error:
        damage = f"the shard cannot be read: {error.strerror or error}"
    except (tarfile.TarError, ValueError) as error:  # the second of numbers in a damaged header
        damage = (
            f"the shard is damaged after {counted(count, 'picture')}: {error}"
            if archive
            else f"it is no tar file: {error}"
        )
    if shard and shard.damage:  # of its compression; what the tar lacks follows from it
        damage = shard.damage
    if damage or not count:
        yield Refused(str(path), damage or "the shard holds no pictures")


def _pictures(shard: _Shard, archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """The headers of what is called a picture; TarError or ValueError where the shard ends too early."""
    place = 0
    while True:
        with shard.lock:
            entry = archive.next()
        if entry is None:
            _check_end(shard, archive.offset)
            return
        if archive.offset <= place:  # it would be read for ever
            raise tarfile.ReadError("a member has a negative size")
        place = archive.offset
        archive.members = []  # type: ignore[attr-defined]  # it keeps every header otherwise
        if not entry.isdir() and _is_shown(entry.name) and entry.name.lower().endswith(_ENDS):
            yield entry


def _check_end(shard: _Shard, offset: int) -> None:
    """Raise TarError unless zeros and nothing else follow: `TarFile.next` takes a damaged header for the end.

    All common writers close a shard with two such blocks, so one without has been cut off.
    """
    block = shard.read(offset, tarfile.BLOCKSIZE)
    if len(block) < tarfile.BLOCKSIZE:
        raise tarfile.ReadError("it is cut off, the mark of its end is missing")
    if any(block):
        raise tarfile.ReadError(f"the header at byte {offset:,} is damaged")
    while block := shard.read(offset := offset + len(block), 2**16):
        if any(block):
            raise tarfile.ReadError("more follows the mark of its end")


def _member(shard: _Shard, entry: tarfile.TarInfo) -> Member | Refused:
    name = entry.name.removeprefix("./")
    if entry.isreg() and not entry.issparse():
        return Member(shard, name, entry.offset_data, entry.size)
    if entry.islnk():  # the place of its target would take a table of all names
        reason = f"it is a hard link to {entry.linkname}, which is not followed: pack with tar --hard-dereference"
    elif entry.issym():
        reason = f"it is a symbolic link to {entry.linkname}, which is not followed: pack with tar --dereference"
    elif entry.issparse():
        reason = "it is packed as a sparse file, which is not read: pack without tar --sparse"
    else:
        reason = "it is not a regular file"
    return Refused(f"{shard.path}/{name}", reason)


def _is_shown(name: str) -> bool:
    """Whether no part is hidden; not by pathlib, whose table of names grows with every new one."""
    return not any(part.startswith(".") and part != "." for part in name.split("/"))
