"""`taxonet pull`."""

from typing import Annotated

from cyclopts import Parameter

from taxonet.cli.output import options_text, print_json, print_table
from taxonet.errors import UsageError


def pull(
    name: str | None = None,
    /,
    *,
    list_: Annotated[bool, Parameter(name="--list", negative="")] = False,
    json: bool = False,
) -> int:
    """Bring pretrained weights into the cache, or list what the catalogue knows.

    A file of the hub is compared with the SHA-256 that the hub states, a file at a URL with the digits of its hash that
    the catalogue has. The weights are then used by their name: `taxonet predict PHOTO -m densenet121.tv_in1k`.

    The cache is TAXONET_CACHE, else taxonet in XDG_CACHE_HOME or ~/.cache; files of the hub lie in its own cache
    (HF_HOME). HF_ENDPOINT names another hub, TAXONET_MIRROR another server for the files at a URL (MIRROR/host/path),
    HF_TOKEN a token; HF_HUB_OFFLINE=1 forbids the network.

    Parameters
    ----------
    name
        Weights as timm or torchvision write them: densenet121.tv_in1k, timm/densenet121.tv_in1k,
        densenet121.IMAGENET1K_V1; or a network, for its default weights. With --list a part of a name or a pattern
        such as "resnet50*".
    list_
        List what there is and fetch nothing.
    json
        One JSON document on stdout.
    """
    if list_:
        return _list(name or "*", json)
    if name is None:
        raise UsageError("pull needs the name of the weights; `taxonet pull --list` shows them")
    from taxonet.console import Terminal
    from taxonet.weights.pulling import pull as run_pull

    with Terminal() as terminal:
        done = run_pull(name, listener=terminal)
    if json:
        print_json(done.as_dict())
        return 0
    print(f"weights        {done.name}, of the network {done.variant}")
    print(f"from           {done.source}{'' if done.new else '  (here already)'}")
    print(f"accuracy       {done.accuracy}")
    print(f"licence        {done.licence}")
    print(f"options        {options_text(done.options)}")
    print(f"preprocessing  {done.preprocessing}")
    print(f"file           {done.path}")
    print(f"use            taxonet predict PHOTO -m {done.name}")
    return 0


def _list(pattern: str, json: bool) -> int:
    from taxonet.weights.catalogue import entries_like
    from taxonet.weights.hub import bundle_path

    found = entries_like(pattern)
    here = {entry.name for entry in found if bundle_path(entry).is_file() or entry.path is not None}
    if json:
        print_json(
            [
                {
                    "name": entry.name,
                    "variant": entry.variant,
                    "source": entry.source,
                    "licence": entry.licence,
                    "published": entry.published,
                    "preprocessing": entry.preprocessing,
                    "options": entry.options,
                    "here": entry.name in here,
                }
                for entry in found
            ]
        )
        return 0
    rows = [
        (
            entry.name,
            entry.variant,
            f"{entry.published['top1']:.2f}" if "top1" in entry.published else "–",
            entry.licence,
            "package" if entry.package else "hub" if entry.hub else "url",
            "yes" if entry.name in here else "",
        )
        for entry in found
    ]
    print_table(("weights", "network", "top-1 % as reported", "licence", "from", "here"), rows, right=frozenset({2}))
    return 0
