"""What PATH arguments mean: files, folders, glob patterns, lists, tables and tar shards, one picture after the other.

Only names wait in memory, and of a list, a table or a shard only the one that is next.
"""

import glob
import itertools
import json
import os
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, TypeAlias

from taxonet.data.shards import Member, Missing, Refused, is_shard, read_shard
from taxonet.data.sources import files_below, formats, is_picture, kind_of
from taxonet.data.tables import TABLES, read_rows
from taxonet.errors import DataError, UsageError, nearest_file

PictureInput: TypeAlias = Path | Member | Refused
PathLike: TypeAlias = str | os.PathLike[str]

STDIN = ("-", "@-")  # the second for a command line that takes a lone hyphen for an option
BLOCK = 2**16  # bytes of a list at a time
_RANGE = re.compile(r"(\d+)\.\.(\d+)")


class _Words:
    """The words of an iterator, in a temporary file: they may be millions, and are gone through more than once."""

    def __init__(self, words: Iterable[PathLike]) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the inputs
        self._file.writelines(json.dumps(os.fspath(word)).encode() + b"\n" for word in words)

    def __iter__(self) -> Iterator[str]:
        place = 0
        while True:
            self._file.seek(place)
            lines = self._file.readlines(BLOCK)
            if not lines:
                return
            place = self._file.tell()  # another iteration may go on meanwhile
            yield from map(json.loads, lines)


def _kept(words: Iterable[PathLike]) -> Iterable[str]:
    return _Words(words) if isinstance(words, Iterator) else [os.fspath(word) for word in words]


class Inputs:
    """The pictures that arguments mean, in the order given; iterating reads the sources anew each time.

    Args:
        paths: a file; a folder (its files in name order, hidden ones left out); a glob pattern; a tar shard, several of
            them by a pattern or as `shard-{000..009}.tar`; a `.csv` or `.parquet` file with a column `path`, whose
            relative paths count from the table; `@FILE`, a list; `-`, a list on stdin. A file of the very name comes
            before every other meaning. Of an iterator the words wait in a temporary file.
        lists: lists: one path a line, or separated by NUL as `find -print0` writes; relative paths count from the
            current folder. `-` is stdin.
        own: files of the work itself, which are left out where a folder or a pattern has them.

    What is no picture, or does not exist, stays, so that it is answered with an error.
    """

    def __init__(self, paths: Iterable[PathLike], lists: Iterable[PathLike] = (), own: Iterable[PathLike] = ()) -> None:
        self.paths = _kept(paths)
        self.lists = _kept(lists)
        self.own = frozenset(os.path.abspath(path) for path in own)  # noqa: PTH100 - absolute() leaves `..` in

    def __iter__(self) -> Iterator[PictureInput]:
        for name in self._names(stdin=True):
            if isinstance(name, Path) and is_shard(name):
                yield from read_shard(name)
            else:
                yield name

    def count(self) -> int | None:
        """Look over every source without opening a picture; how many inputs there are, None when that takes reading.

        Stdin cannot be read twice, and a shard tells its number only at its end.

        Raises:
            DataError: a folder without pictures, a pattern that matches nothing, a list or table that cannot be read.
        """
        total, known = 0, not any(word in STDIN for word in itertools.chain(self.paths, self.lists))
        for name in self._names(stdin=False):
            known = known and not (isinstance(name, Path) and is_shard(name))
            total += 1
        return total if known else None

    def _names(self, stdin: bool) -> Iterator[Path | Refused]:
        for word in self.paths:
            yield from _list(word, stdin) if word in STDIN else filter(self._is_foreign, _source(word))
        for name in self.lists:
            yield from _list(name, stdin)

    def _is_foreign(self, name: Path | Refused) -> bool:
        return not self.own or isinstance(name, Refused) or os.path.abspath(name) not in self.own  # noqa: PTH100


def _source(word: str) -> Iterable[Path | Refused]:
    path = Path(word)
    kind = kind_of(path)
    if kind == "file" and path.suffix.lower() in TABLES:
        return _table(path)
    if not kind and word.startswith("@"):
        return _list(word[1:], stdin=False)
    spellings = [] if kind else _braces(word)
    if len(spellings) > 1:
        return itertools.chain.from_iterable(map(_source, spellings))
    if kind == "folder":
        return _folder(path)
    if not kind and not glob.has_magic(word):
        return [Missing(word)]
    return _files(path, kind)


def _files(path: Path, kind: str | None) -> Iterable[Path]:
    """The files of a folder or of a pattern; else the path itself, be there something or not."""
    if kind == "folder":
        return (name for name in _folder(path) if isinstance(name, Path))
    if not kind and glob.has_magic(word := os.fspath(path)):
        return map(Path, _matches(word))
    return [path]


def _folder(path: Path) -> Iterator[Path | Refused]:
    """The files of a folder; one below it that cannot be listed is answered with the reason, after its neighbours."""
    closed: list[OSError] = []
    if not any(is_picture(file) or is_shard(file) for file in files_below(path, closed.append)):
        if closed:
            raise DataError(f"{closed[0].filename} cannot be listed: {closed[0].strerror}") from closed[0]
        raise DataError(f"{path} holds no pictures (formats: {formats()})")
    closed.clear()
    for file in files_below(path, closed.append):
        yield from _refused(closed)
        yield file
    yield from _refused(closed)


def _refused(closed: list[OSError]) -> Iterator[Refused]:
    while closed:
        error = closed.pop(0)
        yield Refused(str(error.filename), f"the folder cannot be listed: {error.strerror}")


def _matches(pattern: str) -> list[str]:
    matches = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207 - an absolute pattern is allowed here
    files = [match for match in matches if kind_of(Path(match)) != "folder"]
    if not files:
        folder = Path(pattern).parent
        hint = ", only folders do" if matches else ""
        if not glob.has_magic(str(folder)) and not folder.exists():
            hint = f", there is no folder {folder}{nearest_file(folder)}"
        raise DataError(f"no file matches {pattern}{hint}")
    return files


def _braces(word: str) -> list[str]:
    """`a-{08..10}.tar` → a-08.tar, a-09.tar, a-10.tar; `{a,b}.tar` → a.tar, b.tar; the word itself without braces."""
    match = re.search(r"\{([^{}]*)\}", word)
    if not match:
        return [word]
    bounds = _RANGE.fullmatch(match[1])
    if bounds:
        first, last = int(bounds[1]), int(bounds[2])
        if last < first or last - first >= 10**6:
            raise UsageError(f"{word}: {match[0]} must count upwards, over less than a million numbers")
        choices = [str(number).zfill(len(bounds[1])) for number in range(first, last + 1)]
    elif "," in match[1]:
        choices = match[1].split(",")
    else:
        return [word]
    head, tail = word[: match.start()], word[match.end() :]
    return [spelling for choice in choices for spelling in _braces(f"{head}{choice}{tail}")]


def _list(name: str, stdin: bool) -> Iterator[Path]:
    if name in STDIN:
        yield from _entries(sys.stdin.buffer) if stdin else ()
        return
    try:
        with Path(name).open("rb") as file:
            yield from _entries(file)
    except OSError as error:
        hint = nearest_file(name)
        raise DataError(f"the list {name} cannot be read: {error.strerror or error}{hint}") from error


def _entries(file: BinaryIO) -> Iterator[Path]:
    return (Path(os.fsdecode(line)) for line in read_lines(file))


def read_lines(file: BinaryIO) -> Iterator[bytes]:
    """The entries of a list that are not empty; NUL separates them where the list's beginning holds one."""
    read = getattr(file, "read1", file.read)
    block = read(BLOCK).removeprefix(b"\xef\xbb\xbf")
    separator, ends = (b"\0", b"") if b"\0" in block else (b"\n", b"\r")
    rest = b""
    while block:
        *whole, rest = (rest + block).split(separator)
        yield from (line for entry in whole if (line := entry.rstrip(ends) if ends else entry))
        block = read(BLOCK)
    if line := rest.rstrip(ends) if ends else rest:
        yield line


def _table(path: Path) -> Iterator[Path | Refused]:
    for number, row in enumerate(read_rows(path, ["path"]), start=1):
        if text := row["path"].strip():
            yield path.parent / text
        else:
            yield Refused(f"{path}, row {number}", "the path is empty")


def expand_inputs(inputs: Iterable[PathLike]) -> list[Path]:
    """The files that PATH arguments mean where only files, folders and patterns will do."""
    paths = [Path(item) for item in inputs]
    return [file for path in paths for file in _files(path, kind_of(path))]
