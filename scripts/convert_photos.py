"""The two photos are scikit-image's, as JPEG of quality 92: convert_photos.py --source DIR --out DIR.

DIR of --source is the folder `skimage/data` of an installed scikit-image or of its wheel. The files are known by
their SHA-256, as scikit-image's registry lists it. The bytes written depend on Pillow's JPEG library.
"""

import argparse
import hashlib
import io
from pathlib import Path

from PIL import Image

PHOTOS = {  # name: SHA-256 of the original PNG, the comment kept in the JPEG
    "chelsea": (
        "596aa1e7cb875eb79f437e310381d26b338a81c2da23439704a73c4651e8c4bb",
        "Chelsea the cat. Photograph by Stefan van der Walt, CC0 1.0.",
    ),
    "coffee": (
        "cc02f8ca188b167c775a7101b5d767d1e71792cf762c33d6fa15a4599b5a8de7",
        "Coffee cup. Photograph by Rachel Michetti, courtesy of Pikolo Espresso Bar, CC0 1.0.",
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--source", type=Path, required=True, metavar="DIR", help="scikit-image's data folder")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the two photos go")
    arguments = parser.parse_args()

    arguments.out.mkdir(parents=True, exist_ok=True)
    for name, (digest, comment) in PHOTOS.items():
        content = (arguments.source / f"{name}.png").read_bytes()
        if hashlib.sha256(content).hexdigest() != digest:
            raise SystemExit(f"'{name}.png' is not the file scikit-image's registry lists")
        with Image.open(io.BytesIO(content)) as photo:
            target = arguments.out / f"{name}.jpg"
            photo.convert("RGB").save(target, quality=92, optimize=True, comment=comment)


if __name__ == "__main__":
    main()
