"""Many photos out of few, as hard links in a temporary folder."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from taxonet.assets import photo_paths
from taxonet.data import expand_inputs


@contextmanager
def linked_photos(data: Path | None, count: int, broken_every: int = 0) -> Iterator[Path]:
    """A folder of `count` photos; with `broken_every` each so many-th is cut in the middle."""
    sources = expand_inputs([data]) if data else photo_paths()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        kept = [root / f".source{i}{source.suffix}" for i, source in enumerate(sources[: min(len(sources), 200)])]
        for source, copy in zip(sources, kept, strict=False):  # one copy: hard links cross no file system
            copy.write_bytes(source.read_bytes())
        cut = root / ".cut.jpg"
        cut.write_bytes(kept[0].read_bytes()[: kept[0].stat().st_size // 2])
        for i in range(count):
            broken = broken_every and i % broken_every == broken_every - 1
            source = cut if broken else kept[i % len(kept)]
            os.link(source, root / f"{i:06d}{source.suffix}")
        yield root
