"""`taxonet import`."""

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from taxonet.cli.output import options_text, parse_options, print_json


def import_weights(
    file: Path,
    /,
    *,
    name: Annotated[str, Parameter(name="--as")],
    out: Path,
    source: Annotated[str | None, Parameter(name="--from")] = None,
    classes: str | None = None,
    preprocessing: str | None = None,
    bgr: bool | None = None,
    licence: str | None = None,
    option: Annotated[list[str] | None, Parameter(negative="")] = None,
    json: bool = False,
) -> int:
    """Make a bundle of weights from another library; a file that holds more than tensors is refused.

    Parameters
    ----------
    file
        A PyTorch checkpoint of plain tensors (.pth, .pt, .th) or a safetensors file.
    name
        The network that the weights are of; timm's spelling (tf_efficientnet_b0) chooses timm's form of it.
    out
        The bundle to write.
    source
        Whose file it is: torchvision, timm, …; by default every layout that is known is tried.
    classes
        A file with the class names, one a line or a JSON list, in the order of the outputs; or imagenet, or cifar10.
    preprocessing
        How the weights want their pictures, as in "exif | rgb | resize(256) | center_crop(224) | normalize(imagenet)".
        Means and deviations of pixels from 0 to 255 are divided by 255 and stand in the order R, G, B:
        "… | normalize((0.48502, 0.45795, 0.40761), (0.00392157, 0.00392157, 0.00392157))".
    bgr
        The weights were trained on BGR pictures: the first convolution is turned. By default so for Caffe's names.
    licence
        The licence of the weights.
    option
        An option of the network, as in padding=symmetric; may be repeated. `taxonet info NAME` lists them.
    json
        One JSON document on stdout.
    """
    from taxonet.weights.import_weights import import_weights as run_import

    done = run_import(
        file,
        name,
        out,
        source=source,
        classes=classes,
        preprocessing=preprocessing,
        bgr=bgr,
        licence=licence,
        **parse_options(option or []),
    )
    if done.warning:
        print(f"taxonet: warning: {done.warning}", file=sys.stderr)
    if json:
        print_json(done.as_dict())
        return 0
    print(f"network        {done.variant}, layout of the file: {done.layout}")
    others = "no other" if any("left out" in note for note in done.adapted) else "none"
    print(f"weights        {done.tensors} tensors, all matched by name and shape; {others} is left over")
    for note in done.adapted:
        print(f"adapted        {note}")
    print(f"options        {options_text(done.options)}  ({done.options_from})")
    print(f"classes        {done.classes}  ({done.classes_from})")
    print(f"preprocessing  {done.preprocessing}  ({done.preprocessing_from})")
    print(f"bundle         {done.bundle}")
    return 0
