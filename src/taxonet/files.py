"""Writing files in one step: a reader, or a killed run, finds the old file or the new one, never half."""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from taxonet.errors import DataError, UsageError


def write_atomically(path: str | os.PathLike[str], data: bytes) -> None:
    """Put `data` at `path` in one step.

    Raises UsageError when `path` cannot be a file, DataError when the system refuses to write it.
    """
    with replacing(path) as temporary:
        temporary.write_bytes(data)


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path in the folder of `path`; what the block writes there becomes `path` at its end.

    The data reaches the disk before the name does (fsync of the file, rename, fsync of the folder). When the
    block raises, the temporary file is removed and an existing `path` stays as it was. Links are followed.
    Raises UsageError when `path` cannot be a file, DataError when the system refuses to write it; the block
    should only write, since every OSError in it is taken for a failure to write `path`.
    """
    check_target(path)
    target = Path(path).resolve()
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(6)}.tmp")
    try:
        temporary.open("xb").close()
        yield temporary
        _settle(temporary, target)
    except OSError as error:
        raise DataError(f"cannot write '{path}': {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def remove_leftovers(path: str | os.PathLike[str]) -> int:
    """Remove the temporary files that killed writers of `path` left behind; returns how many there were.

    Only for a caller who knows that nobody else is writing `path` now, such as a resumed run.
    """
    target = Path(path).resolve()
    pieces = ((file, file.name.removeprefix(f".{target.name}.")) for file in target.parent.glob(".*.tmp"))
    leftovers = [file for file, rest in pieces if rest != file.name and rest.count(".") == 1]
    for file in leftovers:
        file.unlink(missing_ok=True)
    return len(leftovers)


def check_target(path: str | os.PathLike[str]) -> None:
    """Refuse, with a UsageError, a path that `replacing` could not write."""
    try:
        _check_target(path)
    except OSError as error:  # a name that is too long, a folder that may not be looked into
        raise UsageError(f"cannot write '{path}': {error.strerror or error}") from error


def _check_target(path: str | os.PathLike[str]) -> None:
    target = Path(path).resolve()
    if target.is_dir():
        raise UsageError(f"cannot write '{path}': it is a folder, and a file is wanted")
    if target.exists() and not target.is_file():
        raise UsageError(f"cannot write '{path}': it is not a regular file")
    if not target.parent.is_dir():
        raise UsageError(f"cannot write '{path}': the folder '{target.parent}' does not exist")
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise UsageError(f"cannot write '{path}': the folder '{target.parent}' is not writable")


def check_folder(path: str | os.PathLike[str]) -> None:
    """Refuse, with a UsageError, a folder that cannot be made or written into."""
    folder = Path(path).absolute()
    there = next(place for place in (folder, *folder.parents) if os.path.lexists(place))
    if not there.is_dir():
        raise UsageError(f"cannot make the folder '{path}': '{there}' is not a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UsageError(f"cannot write into '{path}': the folder '{there}' is not writable")


def make_folder(path: str | os.PathLike[str]) -> None:
    """Make a folder where there is none yet, with those above it.

    Raises UsageError when there cannot be one, DataError when the system refuses to make it.
    """
    check_folder(path)
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot make the folder '{path}': {error.strerror or error}") from error


def _settle(temporary: Path, target: Path) -> None:
    if target.exists():
        shutil.copymode(target, temporary)
    with temporary.open("rb+") as handle:
        os.fsync(handle.fileno())
    temporary.replace(target)
    if os.name == "posix":  # elsewhere a folder cannot be opened
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
