"""Exports: they answer as the bundle does or are refused, they carry its JSON, and they need no torch."""

import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import taxonet
from taxonet.assets import photo_paths
from taxonet.cli.app import main
from taxonet.errors import BundleError, UsageError
from taxonet.images import Preprocessing
from taxonet.inference import conversion
from taxonet.inference.artefacts import read_openvino, write_openvino
from taxonet.weights.bundle import BundleInfo, read_info

ENDINGS = {"openvino": ("xml", "bin"), "onnx": ("onnx",), "pt2": ("pt2",)}


@pytest.fixture(scope="module")
def exported(small_bundle, tmp_path_factory):
    """The small bundle in all formats: `exported[to]` is what `export` returned."""
    folder = tmp_path_factory.mktemp("exported")
    return {to: taxonet.export(small_bundle, to=to, out=folder / "colours") for to in ENDINGS}


@pytest.fixture(scope="module")
def photos(fill, tmp_path_factory):
    return fill(tmp_path_factory.mktemp("photos"), red=3, green=2, blue=2)


@pytest.mark.parametrize("to", ENDINGS)
def test_an_export_is_whole_and_agrees(exported, to):
    done = exported[to]
    assert done.problem is None
    assert [file.name for file in done.files] == [f"colours.{ending}" for ending in ENDINGS[to]]
    assert done.bytes == sum(file.stat().st_size for file in done.files)
    assert done.agreement.holds
    assert done.agreement.pictures == 16
    assert done.agreement.difference < 1e-5 * done.agreement.largest_logit


def test_nothing_else_is_left_in_the_folder(exported):
    folder = exported["onnx"].files[0].parent
    assert sorted(file.suffix for file in folder.iterdir()) == [".bin", ".onnx", ".pt2", ".xml"]


@pytest.mark.parametrize("to", ["openvino", "onnx"])
def test_an_export_carries_the_bundle_s_json_and_answers_like_it(exported, small_bundle, colour_classifier, photos, to):
    opened = taxonet.load(exported[to].files[0])
    assert opened.info == read_info(small_bundle)
    files = sorted(photos.rglob("*.png"))
    np.testing.assert_allclose(opened.predict_proba(files), colour_classifier.predict_proba(files), atol=1e-5)


@pytest.mark.parametrize("to", ["openvino", "onnx"])
def test_predicting_with_an_export_imports_no_torch(exported, photos, to):
    program = (
        "import sys; from taxonet.cli.app import main; status = main(sys.argv[1:]); "
        "print([m for m in ('torch', 'sklearn', 'matplotlib', 'onnx', 'scipy') if m in sys.modules], status)"
    )
    words = ["predict", photos / "red" / "0.png", "-m", exported[to].files[0], "--top", "1"]
    ran = subprocess.run([sys.executable, "-c", program, *map(str, words)], capture_output=True, text=True, check=False)
    assert ran.stderr == ""
    first, second = ran.stdout.splitlines()
    assert " red " in first
    assert second == "[] 0"


@pytest.mark.parametrize("to", ["openvino", "onnx"])
def test_an_export_is_evaluated_and_compared(exported, small_bundle, photos, to):
    file = exported[to].files[0]
    assert taxonet.evaluate(file, photos).metrics.top1 == taxonet.evaluate(small_bundle, photos).metrics.top1
    result = taxonet.compare([file, small_bundle], photos, names=["export", "bundle"], runs=0)
    assert result.models[0].engine == {"openvino": "openvino", "onnx": "onnxruntime"}[to]
    assert result.pairs[0].difference == 0


def test_what_an_export_cannot_do(exported, photos, tmp_path):
    file = exported["openvino"].files[0]
    with pytest.raises(UsageError, match="explanations need the network itself"):
        taxonet.explain(file, photos / "red" / "0.png")
    with pytest.raises(UsageError, match="is a model for the engine openvino, torch cannot run it"):
        taxonet.load(file, engine="torch")
    with pytest.raises(UsageError, match="is an export already, export its bundle"):
        taxonet.export(file, to="onnx", out=tmp_path / "x")
    with pytest.raises(UsageError, match="calibrate its bundle and export it again"):
        taxonet.calibrate(file, photos)
    with pytest.raises(BundleError, match=r"a pt2 export is for torch\.export\.load; use the bundle"):
        taxonet.load(exported["pt2"].files[0])


def test_a_pt2_holds_the_json_and_no_pickle(exported, small_bundle):
    with zipfile.ZipFile(exported["pt2"].files[0]) as archive:
        names = archive.namelist()
        (info,) = [name for name in names if name.endswith("taxonet.json")]
        assert BundleInfo.from_json(archive.read(info).decode()) == read_info(small_bundle)
        assert not any(archive.read(name) for name in names if name.endswith((".pt", ".pkl")))


def wrong_mean(monkeypatch):
    """From here on each conversion normalises with a mean of its own."""
    right = conversion.with_preprocessing

    def broken(network, preprocessing):
        steps = str(preprocessing).split(" | ")[:-1]
        return right(
            network, Preprocessing.parse(" | ".join([*steps, "normalize((0.4, 0.4, 0.4), (0.25, 0.25, 0.25))"]))
        )

    monkeypatch.setattr(conversion, "with_preprocessing", broken)


@pytest.mark.parametrize("to", ["openvino", "pt2"])  # for onnx the same module takes ten seconds
def test_an_export_with_broken_preprocessing_is_refused(small_bundle, tmp_path, monkeypatch, capsys, to):
    wrong_mean(monkeypatch)
    assert main(["export", str(small_bundle), "--to", to, "--out", str(tmp_path / "bad"), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["files"] == []
    assert found["agreement"]["difference"] > found["agreement"]["allowed"]
    assert found["problem"].startswith("the export does not answer as the bundle does, so nothing was written: logits")
    assert list(tmp_path.iterdir()) == []


def test_a_refused_export_leaves_the_old_one(small_bundle, tmp_path, monkeypatch, capsys):
    words = ["export", str(small_bundle), "--to", "openvino", "--out", str(tmp_path / "model.xml")]
    assert main(words) == 0
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    wrong_mean(monkeypatch)
    assert main(words) == 1
    assert "nothing was written" in capsys.readouterr().err
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_an_export_is_compared_on_the_photos_given(small_bundle, photos, tmp_path, capsys):
    words = ["export", str(small_bundle), "--to", "openvino", "--out", str(tmp_path / "m"), "--data", str(photos)]
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["agreement"]["pictures"], found["agreement"]["photos"]) == (7, str(photos))
    assert found["files"] == [str(tmp_path / "m.xml"), str(tmp_path / "m.bin")]
    assert found["bytes"] > 0


@pytest.mark.parametrize(
    ("to", "out", "sentence"),
    [
        ("openvin", "x", "there is no format 'openvin', it must be one of: openvino, onnx, pt2; did you mean"),
        ("openvino", "x.onnx", "the file of an export to openvino ends in .xml, not .onnx"),
        ("onnx", "gone/x", "the folder '.*gone' does not exist"),
    ],
)
def test_what_cannot_be_exported(small_bundle, tmp_path, monkeypatch, to, out, sentence):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=sentence):
        taxonet.export(small_bundle, to=to, out=out)


def test_a_pair_of_two_exports_is_refused(exported, tmp_path):
    xml, weights = exported["openvino"].files
    (tmp_path / "x.xml").write_bytes(xml.read_bytes())
    with pytest.raises(BundleError, match=r"its weights x\.bin are missing"):
        taxonet.load(tmp_path / "x.xml")
    data = bytearray(weights.read_bytes())
    (tmp_path / "x.bin").write_bytes(data[: len(data) // 2])  # the graph itself cannot be read then
    with pytest.raises(BundleError, match=r"x\.bin is damaged or of another export"):
        taxonet.load(tmp_path / "x.xml")
    data[1000] ^= 1
    (tmp_path / "x.bin").write_bytes(data)
    with pytest.raises(BundleError, match=r"x\.bin is damaged or of another export"):
        taxonet.load(tmp_path / "x.xml")


@pytest.mark.parametrize(("to", "share"), [("openvino", 0.5), ("openvino", 0.95), ("onnx", 0.5), ("onnx", 0.99)])
def test_a_cut_export_is_refused_with_one_sentence(exported, tmp_path, to, share):
    for file in exported[to].files:
        data = file.read_bytes()
        (tmp_path / file.name).write_bytes(data if file.suffix == ".bin" else data[: int(share * len(data))])
    with pytest.raises(BundleError, match=r"cannot read '.*': it is damaged") as caught:
        taxonet.load(tmp_path / exported[to].files[0].name)
    assert "\n" not in str(caught.value)


def test_files_that_are_no_exports(tmp_path):
    (tmp_path / "text.xml").write_text("<html></html>")
    (tmp_path / "text.onnx").write_text("hello")
    with pytest.raises(BundleError, match="it is no OpenVINO model"):
        taxonet.load(tmp_path / "text.xml")
    with pytest.raises(BundleError, match="it is damaged or not a whole ONNX model"):
        taxonet.load(tmp_path / "text.onnx")
    with pytest.raises(BundleError, match="there is no such file"):
        taxonet.load(tmp_path / "gone.xml")


def test_information_that_does_not_fit_the_graph(exported, tmp_path):
    info, model = read_openvino(exported["openvino"].files[0])
    for wrong, sentence in (
        (replace(info, classes=("a", "b")), "its graph has 3 outputs, and it names 2 classes"),
        (replace(info, preprocessing=info.preprocessing.replace("32", "48")), "its preprocessing gives"),
    ):
        write_openvino(tmp_path / "x.xml", model, wrong)
        with pytest.raises(BundleError, match=sentence):
            taxonet.load(tmp_path / "x.xml")
    write_openvino(tmp_path / "x.xml", model, replace(info, classes=("ä \"<&>'", "日本", "c\\n")))
    assert taxonet.load(tmp_path / "x.xml").classes == ("ä \"<&>'", "日本", "c\\n")
    for old, new, sentence in (
        ("&quot;schema&quot;: 1", "&quot;schema&quot;: 9", "written by a newer Taxonet"),
        ("<bundle ", "<bungle ", "carries no classes and preprocessing of Taxonet"),
    ):
        text = (tmp_path / "x.xml").read_text("utf-8")
        assert old in text
        (tmp_path / "y.xml").write_text(text.replace(old, new), "utf-8")
        (tmp_path / "y.bin").write_bytes((tmp_path / "x.bin").read_bytes())
        with pytest.raises(BundleError, match=sentence):
            taxonet.load(tmp_path / "y.xml")


def test_an_export_runs_without_taxonet(exported, colour_classifier, pixels):
    """As docs/export.md shows."""
    prepared = colour_classifier.preprocessing.pixels(pixels("green"))[None]
    expected = colour_classifier.engine.run(prepared)
    program = (
        "import sys, json, numpy as np, openvino as ov, onnxruntime as ort\n"
        "pixels = np.load(sys.argv[1])\n"
        "model = ov.Core().read_model(sys.argv[2])\n"
        "info = json.loads(model.get_rt_info(['taxonet', 'bundle']).value)\n"
        "first = ov.compile_model(model, 'CPU', {'INFERENCE_PRECISION_HINT': 'f32'})(pixels)['logits']\n"
        "session = ort.InferenceSession(sys.argv[3])\n"
        "assert json.loads(session.get_modelmeta().custom_metadata_map['taxonet']) == info\n"
        "second = session.run(['logits'], {'pixels': pixels})[0]\n"
        "np.savez(sys.argv[4], first=first, second=second)\n"
    )
    folder = exported["onnx"].files[0].parent.parent
    np.save(folder / "pixels.npy", prepared)
    words = [folder / "pixels.npy", exported["openvino"].files[0], exported["onnx"].files[0], folder / "logits.npz"]
    subprocess.run([sys.executable, "-c", program, *map(str, words)], check=True)
    found = np.load(folder / "logits.npz")
    np.testing.assert_allclose(found["first"], expected, atol=1e-4)
    np.testing.assert_allclose(found["second"], expected, atol=1e-4)


@pytest.mark.parametrize("value", [{"max_drop": 0.5}, {"calibration": 10}, {"seed": 3}])
def test_a_value_of_int8_without_int8_is_refused(small_bundle, tmp_path, value):
    (name,) = value
    with pytest.raises(UsageError, match=f"{name} is a value of int8, and int8 is not asked for"):
        taxonet.export(small_bundle, to="openvino", out=tmp_path / "x", **value)
    assert not list(tmp_path.iterdir())


def test_a_photo_of_data_that_cannot_be_read_is_listed(small_bundle, tmp_path, capsys):
    for label in ("red", "green"):
        (tmp_path / "photos" / label).mkdir(parents=True)
        shutil.copy(photo_paths()[0], tmp_path / "photos" / label / "good.jpg")
    (tmp_path / "photos" / "red" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no picture")
    words = ["export", str(small_bundle), "--to", "openvino", "--out", str(tmp_path / "model"), "--data"]
    assert main([*words, str(tmp_path / "photos"), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["agreement"]["pictures"], found["problem"], len(found["files"])) == (2, None, 2)
    assert [Path(error["path"]).name for error in found["errors"]] == ["broken.jpg"]
    assert main([*words, str(tmp_path / "photos")]) == 1
    assert "not used (1):" in capsys.readouterr().out


@pytest.mark.parametrize("out", [".", "", ".."])
def test_a_folder_is_no_place_for_an_export(small_bundle, tmp_path, monkeypatch, out):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"which is a folder, and a file is wanted, with or without \.xml"):
        taxonet.export(small_bundle, to="openvino", out=out)


def test_weights_of_somebody_else_are_not_written_over(small_bundle, tmp_path):
    (tmp_path / "mine.bin").write_bytes(b"mine")
    with pytest.raises(UsageError, match=r"mine\.bin is there already and belongs to no mine\.xml"):
        taxonet.export(small_bundle, to="openvino", out=tmp_path / "mine")
    assert (tmp_path / "mine.bin").read_bytes() == b"mine"


def test_what_a_killed_export_left_is_removed_by_a_later_one(small_bundle, tmp_path):
    for name, age in (("old", 7200), ("young", 60)):
        (tmp_path / f".m.xml.{name}.draft").mkdir()
        os.utime(tmp_path / f".m.xml.{name}.draft", (time.time() - age,) * 2)
    taxonet.export(small_bundle, to="openvino", out=tmp_path / "m")
    assert {path.name for path in tmp_path.iterdir()} == {"m.xml", "m.bin", ".m.xml.young.draft"}


def test_photos_to_compare_on_need_no_classes(small_bundle, paint, tmp_path):
    for number in range(3):
        paint(tmp_path / "loose" / f"{number}.png", "red", number)
    (tmp_path / "loose" / "notes.txt").write_text("of no account")
    done = taxonet.export(small_bundle, to="onnx", out=tmp_path / "x", data=tmp_path / "loose")
    assert (done.agreement.pictures, done.findings) == (3, ())


@pytest.mark.skipif(os.name != "posix", reason="SIGTERM is POSIX's")
def test_an_export_that_is_terminated_leaves_nothing(small_bundle, tmp_path):
    """The signal comes when the draft is there: the listener's words say so."""
    command = [sys.executable, "-m", "taxonet", "export", str(small_bundle), "--to", "openvino", "--out", "x"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        assert any("comparing" in line for line in process.stderr)
        process.terminate()
        assert process.wait(60) in (143, 0)  # it may have been done
    assert [path.name for path in tmp_path.iterdir() if path.suffix not in (".xml", ".bin")] == []
