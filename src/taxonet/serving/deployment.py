"""The models that a server serves: their names, what their bundles say, and the change of one for another.

A model's file is looked at every second. When it has changed and stays as it is, the new one is opened beside the old
one in every worker; new requests then go to the new one, and the old one is closed when its last picture is answered.
"""

import asyncio
import itertools
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from taxonet.errors import TaxonetError, UsageError, nearest
from taxonet.inference.artefacts import is_artefact
from taxonet.serving.drift import Drift
from taxonet.serving.pool import Opening, Pool
from taxonet.serving.settings import Settings
from taxonet.weights.bundle import BundleInfo
from taxonet.weights.finding import FILE_SUFFIXES, file_of

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class NoModelError(UsageError):
    """There is no model of that name."""


@dataclass
class Served:
    """A model under its name: which of its openings answers now."""

    name: str
    path: str
    key: str
    info: BundleInfo
    engine: str
    signature: tuple[Any, ...]
    drift: Drift
    loaded: str  # when, in UTC

    @property
    def explains(self) -> bool:
        """Whether there is a network whose gradients can be asked for."""
        return not is_artefact(self.path)


@dataclass
class Deployment:
    """All models of a server, by name; `reloads` counts the changes, `failures` those that were refused."""

    pool: Pool
    settings: Settings
    say: Callable[[str], None]
    served: dict[str, Served] = field(default_factory=dict)
    reloads: int = 0
    failures: int = 0
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
        signature = signature_of(path)
        settings = self.settings
        opening = Opening(
            key=f"{name}#{next(self._numbers)}",
            path=path,
            engine="auto" if is_artefact(path) else settings.engine,
            batch=settings.batch_of.get(name, settings.batch),
            wait=settings.wait_of.get(name, settings.wait),
        )
        said = await self.pool.prepare(opening)
        info = BundleInfo.from_json(said["info"])
        if not is_artefact(path):
            opening = Opening(opening.key, path, said["engine"], opening.batch, opening.wait)
        await self.pool.open(opening)
        self.say(f"{name}: {info.variant}, {info.num_classes} classes, engine {said['engine']}, from {path}")
        trained = info.metrics.get("inputs", {})
        return Served(name, path, opening.key, info, said["engine"], signature, Drift(trained), _now())

    async def watch(self) -> None:
        """Look at the files for ever."""
        seen: dict[str, tuple[Any, ...]] = {name: one.signature for name, one in self.served.items()}
        while True:
            await asyncio.sleep(self.settings.reload_seconds)
            for name, model in list(self.served.items()):
                now = signature_of(model.path)
                settled, seen[name] = now == seen[name], now
                if settled and now and now != model.signature:  # it has changed, and nobody writes it any more
                    await self._reload(name, model)

    async def _reload(self, name: str, model: Served) -> None:
        try:
            fresh = await self._opened(name, model.path)
        except TaxonetError as error:
            self.failures += 1
            model.signature = signature_of(model.path)  # said once
            self.say(f"{name}: its file has changed and cannot be opened, the old one goes on: {error}")
            return
        self.served[name] = fresh
        self.reloads += 1
        self.say(f"{name}: the new file answers")
        await self.pool.close(model.key)


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
    return path.stem if path.is_file() or path.suffix in FILE_SUFFIXES else word


def signature_of(path: str) -> tuple[Any, ...]:
    """What changes with a model's files; empty where they cannot be looked at."""
    with suppress(OSError, TaxonetError):
        file = file_of(path)
        if file is not None:
            files = [file, file.with_suffix(".bin")] if file.suffix == ".xml" else [file]
            states = [one.stat() for one in files]
            return tuple((state.st_mtime_ns, state.st_size, state.st_ino) for state in states)
    return ()


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
