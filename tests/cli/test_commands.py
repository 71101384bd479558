"""The command as a user types it: output, exit status, and one sentence for every mistake."""

import csv
import io
import json
import struct
import subprocess
import sys
import zlib

import pytest
from PIL import Image

from taxonet.assets import photo_paths
from taxonet.cli.app import main
from taxonet.cli.output import parse_count, short_count
from taxonet.errors import UsageError


def run(capsys, *words):
    status = main([str(word) for word in words])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def one_sentence(error):
    lines = [line for line in error.splitlines() if line.strip()]
    assert len(lines) == 1, error
    assert lines[0].startswith("taxonet: ")
    assert "Traceback" not in error
    return lines[0]


def huge_png(path):
    """A true PNG of 30,000 × 30,000 black pixels in a few hundred kilobytes."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer = zlib.compressobj(9)
    row = bytes(1 + 30_000 // 8)
    pixels = b"".join(packer.compress(row) for _ in range(30_000)) + packer.flush()
    header = struct.pack(">IIBBBBB", 30_000, 30_000, 1, 0, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b""))
    return path


@pytest.fixture
def photos(tmp_path):
    chelsea, coffee = photo_paths()
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(coffee.read_bytes())
    (folder / "b.jpg").write_bytes(coffee.read_bytes()[:9000])
    (folder / "c.jpg").write_bytes(chelsea.read_bytes())
    return folder


# --- models and info


def test_models(capsys):
    status, out, _ = run(capsys, "models", "densenet1*", "--json")
    listed = json.loads(out)
    assert status == 0
    assert [m["name"] for m in listed] == ["densenet121", "densenet169", "densenet161"]
    assert set(listed[0]) >= {"name", "family", "params", "macs", "input_size", "pretrained"}
    assert listed[0]["params"] == 7978856


def test_models_by_family_and_cost(capsys):
    _, out, _ = run(capsys, "models", "--family", "mobilenet_v2", "--max-params", "2M", "--max-macs", "0.06G", "--json")
    assert [m["name"] for m in json.loads(out)] == ["mobilenet_v2_035"]
    status, out, _ = run(capsys, "models", "efficientnet*")
    assert status == 0
    assert "efficientnet_lite0" in out
    assert "4,652,008" in out


@pytest.mark.parametrize(
    "name", ["densenet_bc_22_12", "mobilenet_v1_025", "mobilenetv2_100", "mobilenet_v3_small", "efficientnet_lite0"]
)
def test_info(capsys, name):
    status, out, _ = run(capsys, "info", name, "--json")
    facts = json.loads(out)
    assert status == 0
    assert set(facts) >= {"name", "family", "params", "macs", "input_size", "paper", "divergences"}
    assert facts["paper"]["title"]
    assert {"topic", "paper", "others", "taxonet"} <= set(facts["divergences"][0])
    status, text, _ = run(capsys, "info", name)
    assert status == 0
    assert f"{facts['params']:,}" in text
    assert facts["paper"]["title"] in text


def test_unverified_figures_are_called_so(capsys):
    _, out, _ = run(capsys, "info", "densenet121")
    assert "unverified" in out


@pytest.mark.parametrize(
    ("text", "count"), [("5M", 5_000_000), ("1.5g", 1_500_000_000), ("300_000", 300_000), (None, None)]
)
def test_counts_are_read(text, count):
    assert parse_count(text, "--max-params") == count


def test_counts_are_refused_and_shown():
    with pytest.raises(UsageError, match="--max-params is 'many'"):
        parse_count("many", "--max-params")
    assert [short_count(v) for v in (7978856, 288, 1_234_000_000, None)] == ["7.98 M", "288", "1.23 G", "–"]


# --- predict


def test_predict_keeps_order_around_a_broken_file(capsys, photos):
    status, out, _ = run(capsys, "predict", photos, "--json", "--top", 2)
    answers = json.loads(out)
    assert status == 1
    assert [a["path"].rsplit("/", 1)[-1] for a in answers] == ["a.jpg", "b.jpg", "c.jpg"]
    assert answers[0]["predictions"][0]["label"] == "espresso"
    assert answers[1]["predictions"] == []
    assert answers[1]["error"]
    assert "cat" in answers[2]["predictions"][0]["label"]
    assert set(answers[0]["predictions"][0]) == {"label", "index", "probability"}
    assert len(answers[0]["predictions"]) == 2


def test_predict_text_csv_and_patterns(capsys, photos, tmp_path):
    status, out, _ = run(capsys, "predict", photos / "a.jpg", photos / "[c]*.jpg")
    assert status == 0
    assert [line.split()[0].rsplit("/", 1)[-1] for line in out.splitlines()] == ["a.jpg", "c.jpg"]
    status, out, error = run(capsys, "predict", photos, "--csv", tmp_path / "out.csv", "--top", 1)
    assert status == 1
    assert out == ""
    assert "3 pictures, 1 of them" in error
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out.csv").read_text())))
    assert rows[0]["label"] == "espresso"
    assert rows[1]["error"]


def test_a_huge_picture_is_refused_and_its_neighbour_answered(capsys, photos, tmp_path):
    huge = huge_png(tmp_path / "huge.png")
    status, out, _ = run(capsys, "predict", huge, photos / "a.jpg", "--json")
    answers = json.loads(out)
    assert status == 1
    assert "900,000,000 pixels" in answers[0]["error"]
    assert answers[1]["predictions"][0]["label"] == "espresso"


# --- mistakes


def test_a_misspelt_verb(capsys):
    status, out, error = run(capsys, "predct", "x.jpg")
    assert (status, out) == (2, "")
    assert "did you mean 'predict'" in one_sentence(error)


@pytest.mark.parametrize(
    ("words", "status", "sentence"),
    [
        (["info", "densnet121"], 2, "did you mean 'densenet121'"),
        (["models", "densnet*"], 2, "no network matches"),
        (["models", "--family", "dense"], 2, "there is no family"),
        (["predict", "PHOTO", "-m", "efficientnet_lite9"], 2, "did you mean 'efficientnet_lite"),
        (["predict", "PHOTO", "-m", "densenet121"], 2, "no pretrained weights of densenet121"),
        (["predict", "PHOTO", "-m", "nowhere/model.safetensors"], 3, "nowhere/model.safetensors"),
        (["predict", "PHOTO", "--engine", "openvio"], 2, "there is no engine"),
        (["predict", "PHOTO", "--top", "0"], 2, "top is 0"),
        (["predict", "PHOTO", "--topp", "3"], 2, "--topp"),
        (["predict"], 2, "PATHS"),
        (["predict", "EMPTY"], 3, "holds no pictures"),
        (["evaluate", "efficientnet_lite0", "nowhere"], 3, "does not exist"),
        (["evaluate", "efficientnet_lite0", "EMPTY"], 3, "holds no pictures"),
        (["train", "nowhere", "--out", "run"], 3, "does not exist"),
        (["train", "EMPTY", "--out", "run"], 3, "holds no pictures"),
        (["train", "ONE", "--out", "run"], 3, "one class"),
        (["train", "ONE", "--out", "run", "--model", "mobilnet_v2"], 2, "did you mean 'mobilenet_v2'"),
        (["train", "ONE", "--out", "run", "--weight-decya", "1"], 2, "did you mean '--weight-decay'"),
        (["train", "TWO", "--out", "run", "--no-keep-memory", "--optimizer", "adam"], 2, "did you mean 'adamw'"),
        (["train", "ONE", "--out", "run", "--momentum", "much"], 2, "must be a number"),
        (["train", "ONE"], 2, "--out"),
    ],
)
def test_a_mistake_is_one_sentence(capsys, tmp_path, monkeypatch, words, status, sentence):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "EMPTY").mkdir()
    for folder in ("ONE/only", "TWO/one", "TWO/two"):
        (tmp_path / folder).mkdir(parents=True)
        for number in range(3):
            Image.new("RGB", (20, 20)).save(tmp_path / folder / f"{number}.png")
    (tmp_path / "PHOTO").write_bytes(photo_paths()[1].read_bytes())
    before = sorted(tmp_path.rglob("*"))
    got, out, error = run(capsys, *words)
    assert (got, out) == (status, "")
    assert sentence in one_sentence(error)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_pickle_is_not_a_model(capsys, tmp_path):
    import pickle

    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps({"a": 1}))
    status, _, error = run(capsys, "predict", photo_paths()[0], "-m", path)
    assert status == 3
    assert "pickle" in one_sentence(error)


def test_debug_shows_the_traceback():
    ran = subprocess.run(
        [sys.executable, "-m", "taxonet", "info", "densnet121", "--debug"], capture_output=True, text=True, check=False
    )
    assert ran.returncode != 0
    assert "Traceback" in ran.stderr


# --- the process


@pytest.mark.parametrize("verb", ["models", "info", "predict", "train", "evaluate", "demo"])
def test_help_of_every_verb(capsys, verb):
    status, out, _ = run(capsys, verb, "--help")
    assert status == 0
    assert f"taxonet {verb}" in out


def test_nothing_heavy_is_loaded_before_it_is_needed():
    code = (
        "import sys, taxonet; from taxonet.cli.app import main; main(['models', '--json']); "
        "print('torch' in sys.modules, file=sys.stderr)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stderr.strip() == "False"
    assert len(json.loads(ran.stdout)) > 50


def test_a_closed_pipe_is_no_error():
    ran = subprocess.run(
        f"{sys.executable} -m taxonet models | head -n 1", shell=True, capture_output=True, text=True, check=True
    )
    assert ran.stdout.startswith("name")
    assert "Traceback" not in ran.stderr


def test_evaluate_on_folders_with_names_of_classes(capsys, tmp_path):
    chelsea, coffee = photo_paths()
    for label, file in (("espresso", coffee), ("tiger cat", chelsea), ("no such thing", coffee)):
        (tmp_path / label).mkdir()
        (tmp_path / label / "1.jpg").write_bytes(file.read_bytes())
    status, out, _ = run(capsys, "evaluate", "efficientnet_lite0", tmp_path, "--json")
    result = json.loads(out)
    assert status == 1
    assert set(result) >= {"n", "top1", "top5", "top1_ci", "ece", "per_class", "errors"}
    assert (result["n"], result["top1"]) == (2, 1.0)
    assert "no class 'no such thing'" in result["errors"][0]["error"]
    status, text, _ = run(capsys, "evaluate", "efficientnet_lite0", tmp_path)
    assert status == 1
    assert "espresso" in text
    assert "not scored (1)" in text
