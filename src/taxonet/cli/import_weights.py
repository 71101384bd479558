"""`taxonet import`."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from taxonet.cli.output import print_json


def import_weights(
    file: Path,
    /,
    *,
    name: Annotated[str, Parameter(name="--as")],
    out: Path,
    source: Annotated[str | None, Parameter(name="--from")] = None,
    classes: str | None = None,
    preprocessing: str | None = None,
    bgr: bool = False,
    licence: str | None = None,
    json: bool = False,
) -> int:
    """Make a bundle of weights from another library; a file that holds more than tensors is refused.

    Parameters
    ----------
    file
        A PyTorch checkpoint of plain tensors (.pth, .pt, .th) or a safetensors file.
    name
        The network that the weights are of.
    out
        The bundle to write.
    source
        Whose names the file uses: torchvision, timm, …; by default every layout that is known is tried.
    classes
        A file with the class names, one a line or a JSON list, in the order of the outputs; or imagenet, or cifar10.
    preprocessing
        How the weights want their pictures, as in "exif | rgb | resize(256) | center_crop(224) | normalize(imagenet)".
    bgr
        The weights were trained on BGR pictures, as Caffe's are.
    licence
        The licence of the weights.
    json
        One JSON document on stdout.
    """
    from taxonet.weights.importing import import_weights as run_import

    done = run_import(
        file, name, out, source=source, classes=classes, preprocessing=preprocessing, bgr=bgr, licence=licence
    )
    if json:
        print_json(done.as_dict())
        return 0
    print(f"network        {done.variant}, layout of the file: {done.layout}")
    others = "no other" if any("left out" in note for note in done.adapted) else "none"
    print(f"weights        {done.tensors} tensors, all matched by name and shape; {others} is left over")
    for note in done.adapted:
        print(f"adapted        {note}")
    print(f"classes        {done.classes}  ({done.classes_from})")
    print(f"preprocessing  {done.preprocessing}  ({done.preprocessing_from})")
    print(f"bundle         {done.bundle}")
    return 0
