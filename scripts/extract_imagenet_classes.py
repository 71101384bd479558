"""The ImageNet names are torchvision's, unchanged: extract_imagenet_classes.py --wheel FILE --out DIR.

FILE is a wheel of torchvision (`pip download --no-deps torchvision`). The list `_IMAGENET_CATEGORIES` is read
as data from `torchvision/models/_meta.py`; nothing of torchvision is run. The names must all be different, since
labels travel by name: torchvision already tells WordNet's homonyms apart ("crane" and "crane bird", "maillot"
and "maillot tank suit"), so none is changed here. 264 "Cardigan" (the dog) and 474 "cardigan" (the garment)
differ by case only.
"""

import argparse
import ast
import zipfile
from pathlib import Path


def categories(source: str) -> list[str]:
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_IMAGENET_CATEGORIES":
            return [str(name) for name in ast.literal_eval(node.value)]
    raise SystemExit("no _IMAGENET_CATEGORIES in torchvision/models/_meta.py")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--wheel", type=Path, required=True, metavar="FILE", help="a wheel of torchvision")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the list goes")
    arguments = parser.parse_args()

    with zipfile.ZipFile(arguments.wheel) as wheel:
        names = categories(wheel.read("torchvision/models/_meta.py").decode("utf-8"))
    if len(names) != 1000 or len(set(names)) != 1000:
        raise SystemExit(f"expected 1000 different names, found {len(names)} with {len(set(names))} different")
    if any(name != name.strip() or not name.isprintable() for name in names):
        raise SystemExit("a name has stray space or control characters")
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "imagenet_classes.txt").write_text("\n".join(names) + "\n", "utf-8", newline="\n")


if __name__ == "__main__":
    main()
