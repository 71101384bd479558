"""`taxonet export`."""

from pathlib import Path

from taxonet.cli.output import print_json


def export(model: str, /, *, to: str, out: Path, data: Path | None = None, json: bool = False) -> int:
    """Write a model as a file for another engine; refused, with exit status 1, unless it answers as the bundle does.

    Parameters
    ----------
    model
        A bundle's path, or pretrained weights as `taxonet pull` names them.
    to
        openvino (OUT.xml and OUT.bin), onnx (OUT.onnx) or pt2 (OUT.pt2, for torch.export.load). The first two are
        taken by `taxonet predict -m`, which then needs no torch.
    out
        The file, with or without its ending.
    data
        Photos to compare the export with the bundle on: class folders or a table; by default the shipped photos.
    json
        One JSON document on stdout: files, bytes, agreement, problem, seconds.
    """
    from taxonet.console import Terminal
    from taxonet.inference.export import export as export_model

    with Terminal() as terminal:
        done = export_model(model, to=to, out=out, data=data, listener=terminal)
        if json:
            print_json(done.as_dict())
        elif done.problem:
            terminal.say(f"taxonet: {done.problem}")
        else:
            for file in done.files:
                print(f"{file}  {file.stat().st_size:,} bytes")
            print(f"on {done.agreement.pictures} views of {done.photos}: {done.agreement}")
    return 1 if done.problem else 0
