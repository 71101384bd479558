"""`taxonet info`: the facts of a network, as text and as JSON."""

import json

import pytest

from taxonet.cli.app import main
from taxonet.sheets import families, load_sheet

SMALLEST = {
    family: min(load_sheet(family).variants.values(), key=lambda facts: facts.params).name for family in families()
}


@pytest.mark.parametrize("name", SMALLEST.values())
def test_json(name, capsys):
    assert main(["info", name, "--json"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    facts = json.loads(captured.out)
    assert {"name", "family", "params", "macs", "input_size", "paper", "divergences"} <= facts.keys()
    sheet = load_sheet(facts["family"])
    assert facts["name"] == name
    assert facts["params"] == sheet.variants[name].params
    assert facts["macs"] == pytest.approx(sheet.variants[name].macs, rel=1e-3)
    assert facts["input_size"] == sheet.variants[name].input_size
    assert facts["paper"]["title"] == sheet.paper.title
    assert [d["topic"] for d in facts["divergences"]] == [d.topic for d in sheet.divergences]
    assert facts["preprocessing"].endswith(")")


def test_text(capsys):
    assert main(["info", "densenet121"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    lines = captured.out.splitlines()
    assert lines[0] == "densenet121  (densenet)"
    facts = dict(line.split(maxsplit=1) for line in lines[1:40] if line and not line.startswith(" ") and " " in line)
    assert facts["parameters"] == "7,978,856"
    assert facts["multiply-adds"].startswith("2.83 G  (Conv2d and Linear, one image of 224×224)")
    assert facts["preprocessing"].startswith("exif | rgb | resize(256, bicubic) | center_crop(224)")
    assert "memory_efficient=False  (or True)" in captured.out
    assert "Densely Connected Convolutional Networks" in captured.out
    assert "where paper, authors' code and ports differ" in captured.out


def test_another_library_s_spelling_and_the_weights(capsys):
    assert main(["info", "tf_efficientnet_lite0", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["name"] == "efficientnet_lite0"
    assert facts["pretrained"][:2] == ["efficientnet_lite0.tpu_in1k", "tf_efficientnet_lite0.in1k"]


def test_fidelity_stands_beside_the_published_sizes(capsys):
    assert main(["info", "mobilenet_v2_140"]) == 0
    out = capsys.readouterr().out
    assert "parameters 6.9 M 6,108,776 -11.47% paper" in " ".join(out.split())
    assert "same logits as timm's mobilenetv2_140 (compared in the tests)" in out
    assert main(["info", "mobilenet_v2_140", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    row = next(row for row in facts["fidelity"] if row["what"] == "parameters" and row["source"] == "paper")
    assert row == {
        "what": "parameters",
        "published": 6.9,
        "unit": "M",
        "source": "paper",
        "built": 6_108_776,
        "difference": pytest.approx((6_108_776 - 6.9e6) / 6.9e6),
    }
    assert facts["ports"] == [{"library": "timm", "name": "mobilenetv2_140", "options": {}}]


def test_drawing(tmp_path, capsys):
    file = tmp_path / "net.svg"
    assert main(["info", "resnet18", "--draw", str(file)]) == 0
    assert file.read_text("utf-8").startswith("<svg ")
    assert capsys.readouterr().out == ""
    assert main(["info", "resnet18", "--draw", str(file), "--block", "stage2.0", "--json"]) == 0
    assert "resnet18 · stage2.0 · BasicBlock" in file.read_text("utf-8")
    assert json.loads(capsys.readouterr().out)["name"] == "resnet18"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--block", "stage2.0"], "--block says what to draw, so it needs --draw FILE.svg"),
        (["--draw", "net.png"], "--draw writes SVG, so net.png must end in .svg"),
        (["--draw", "no-such-folder/net.svg"], "the folder"),
    ],
)
def test_wrong_drawing_is_one_sentence(words, sentence, capsys):
    assert main(["info", "resnet18", *words]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert sentence in captured.err
    assert captured.err.count("\n") == 1
