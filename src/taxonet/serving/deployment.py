"""The models that a server serves: their names, what their bundles say, and the change of one for another.

A model's file is looked at every second. When it has changed and stays as it is, the new one is opened beside the old
one in every worker; new requests then go to the new one, and the old one is closed when its last picture is answered.
"""

import asyncio
import itertools
import math
import re
import shutil
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from taxonet.errors import TaxonetError, UsageError, nearest
from taxonet.inference.artefacts import is_artefact
from taxonet.serving.drift import Drift
from taxonet.serving.pool import Opening, Pool, WorkerDiedError
from taxonet.serving.settings import Settings
from taxonet.weights.bundle import BundleInfo, read_info, reading
from taxonet.weights.finding import FILE_SUFFIXES, file_of
from taxonet.weights.safetensors_header import read_header

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class NoModelError(UsageError):
    """There is no model of that name."""


@dataclass
class Served:
    """A model under its name: which of its openings answers now."""

    name: str
    path: str  # as it was given
    copy: str  # what is open
    key: str
    info: BundleInfo
    engine: str
    parameters: int | None  # of a bundle's network, with its own classes
    signature: tuple[Any, ...]
    drift: Drift
    loaded: str  # when, in UTC

    @property
    def explains(self) -> bool:
        """Whether there is a network whose gradients can be asked for."""
        return not is_artefact(self.path)


@dataclass
class Deployment:
    """All models of a server, by name; `reloads` counts the changes, `failures` those that were refused.

    What is opened is a copy of the model's files in a folder of the server's own: whatever becomes of the files, a
    worker that starts again opens what the others have open. `draining` is set when the server is about to end.
    """

    pool: Pool
    settings: Settings
    say: Callable[[str], None]
    served: dict[str, Served] = field(default_factory=dict)
    reloads: int = 0
    failures: int = 0
    draining: bool = False
    _folder: TemporaryDirectory[str] = field(default_factory=lambda: TemporaryDirectory(prefix="taxonet-serve-"))
    _numbers: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))

    def find(self, name: str) -> Served:
        """The model of a name; raises NoModelError."""
        if name not in self.served:
            raise NoModelError(f"there is no model '{name[:100]}'{nearest(name[:100], self.served)}")
        return self.served[name]

    async def open(self, models: Iterable[str]) -> None:
        """Open the models that the server begins with.

        Raises:
            TaxonetError: one of them cannot be opened, or two have one name.
        """
        named = named_models(models)
        for setting in (self.settings.batch_of, self.settings.wait_of):
            for name in setting:
                if name not in named:
                    raise UsageError(f"there is no model '{name}' to set a batch or a wait for{nearest(name, named)}")
        for name, path in named.items():
            self.served[name] = await self._opened(name, path)

    async def _opened(self, name: str, path: str) -> Served:
        signature, key = signature_of(path), f"{name}#{next(self._numbers)}"
        copy = await asyncio.to_thread(self._copied, path, key)
        try:
            return await self._opened_copy(name, path, copy, key, signature)
        except BaseException as error:
            await self._discard(path, copy)
            if isinstance(error, TaxonetError) and copy in str(error):  # people know the file, not its copy
                raise type(error)(str(error).replace(copy, path)) from error
            raise

    async def _opened_copy(self, name: str, path: str, copy: str, key: str, signature: tuple[Any, ...]) -> Served:
        settings = self.settings
        opening = Opening(
            key=key,
            path=copy,
            engine="auto" if is_artefact(path) else settings.engine,
            batch=settings.batch_of.get(name, settings.batch),
            wait=settings.wait_of.get(name, settings.wait),
        )
        said = await self.pool.prepare(opening)
        info = BundleInfo.from_json(said["info"])
        if not is_artefact(path):
            opening = replace(opening, engine=said["engine"])
        await self.pool.open(opening)
        self.say(f"{name}: {info.variant}, {info.num_classes} classes, engine {said['engine']}, from {path}")
        trained = info.metrics.get("inputs", {})
        parameters = None if is_artefact(path) else parameters_of(copy)
        return Served(name, path, copy, key, info, said["engine"], parameters, signature, Drift(trained), _now())

    @staticmethod
    async def _discard(path: str, copy: str) -> None:
        if copy != path:
            await asyncio.to_thread(shutil.rmtree, Path(copy).parent, True)

    def _copied(self, path: str, key: str) -> str:
        """The model's files copied; a name of the catalogue stays what it is."""
        file = Path(path)
        if not file.is_file():
            return path
        home = Path(self._folder.name, key.replace("#", "-"))
        home.mkdir()
        for one in _files_of(file):
            shutil.copyfile(one, home / one.name)
        return str(home / file.name)

    async def watch(self) -> None:
        """Look at the files for ever."""
        seen: dict[str, tuple[Any, ...]] = {name: one.signature for name, one in self.served.items()}
        while True:
            await asyncio.sleep(self.settings.reload_every)
            for name, model in list(self.served.items()):
                now = signature_of(model.path)
                settled, seen[name] = now == seen[name], now
                if settled and now and now != model.signature:  # it has changed, and nobody writes it any more
                    await self._reload(name, model, now)

    async def _reload(self, name: str, model: Served, signature: tuple[Any, ...]) -> None:
        try:
            fresh = await self._opened(name, model.path)
        except WorkerDiedError as error:
            self.say(f"{name}: its new file could not be opened, that is tried again: {error}")
            return
        except (TaxonetError, OSError) as error:
            self.failures += 1
            model.signature = signature  # said once
            self.say(f"{name}: its file has changed and cannot be opened, the old one goes on: {error}")
            return
        self.served[name] = fresh
        self.reloads += 1
        self.say(f"{name}: the new file answers")
        await self.pool.close(model.key)
        await self._discard(model.path, model.copy)

    def close(self) -> None:
        """Remove the copies."""
        self._folder.cleanup()


def named_models(models: Iterable[str]) -> dict[str, str]:
    """Models by name: of `NAME=PATH`, of a path its stem, of the catalogue its own.

    Raises:
        UsageError: a name that an address cannot have, or two models of one name.
    """
    found: dict[str, str] = {}
    for word in models:
        name, given, path = word.partition("=")
        if not given or "/" in name:
            name, path = _own_name(word), word
        if not _NAME.fullmatch(name):
            raise UsageError(f"'{name}' is no name for an address (letters, digits, . _ -): give one, NAME={path}")
        if name in found:
            raise UsageError(f"two models are called '{name}', {found[name]} and {path}: give one a name, NAME={path}")
        found[name] = path
    if not found:
        raise UsageError("serve needs at least one model")
    return found


def _own_name(word: str) -> str:
    path = Path(word)
    if not path.is_file() and (path.exists() or len(path.parts) > 1):
        read_info(path)  # says why it is no model
    return path.stem if path.is_file() or path.suffix in FILE_SUFFIXES else word


def signature_of(path: str) -> tuple[Any, ...]:
    """What changes with a model's files; empty where they cannot be looked at."""
    with suppress(OSError, TaxonetError):
        file = file_of(path)
        if file is not None:
            states = [one.stat() for one in _files_of(file)]
            return tuple((state.st_mtime_ns, state.st_size, state.st_ino) for state in states)
    return ()


def _files_of(file: Path) -> list[Path]:
    return [file, file.with_suffix(".bin")] if file.suffix == ".xml" else [file]


def parameters_of(bundle: str) -> int | None:
    """The parameters of a bundle's network: its tensors but for the statistics of norms; None for the catalogue's."""
    file = Path(bundle)
    if not file.is_file():
        return None
    with reading(file) as handle:
        entries = read_header(handle).entries
    kept = (entry for name, entry in entries.items() if not name.endswith(STATISTICS))
    return sum(math.prod(entry.shape) for entry in kept)


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
