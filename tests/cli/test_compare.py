import json

import pytest

from taxonet.cli.app import main


@pytest.fixture(scope="module")
def two(small_bundle, tmp_path_factory):
    import torch

    from taxonet.weights.networks import open_model, save_network

    info, network = open_model(small_bundle)
    with torch.no_grad():
        network.classifier.bias[1] += 100.0
    path = tmp_path_factory.mktemp("other") / "greener.safetensors"
    save_network(path, info, network)
    return small_bundle, path


def test_compare_prints_a_table_and_sentences(two, fill, tmp_path, capsys):
    data = fill(tmp_path / "data", red=4, green=4, blue=4)
    page = tmp_path / "page.html"
    assert main([str(word) for word in ("compare", *two, "--data", data, "--runs", 2, "--html", page)]) == 0
    printed = capsys.readouterr().out
    assert "colours is better than greener by" in printed
    assert "multiply-adds" in printed
    assert page.read_text("utf-8").startswith("<!doctype html>")


def test_compare_json_is_one_document(two, fill, broken_jpeg, tmp_path, capsys):
    data = fill(tmp_path / "data", red=2, green=2)
    (data / "red" / "b.jpg").write_bytes(broken_jpeg.read_bytes())
    assert main([str(word) for word in ("compare", *two, "--data", data, "--runs", 0, "--json")]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["n"] == 4
    assert [model["name"] for model in document["models"]] == ["colours", "greener"]
    assert document["errors"][0]["path"].endswith("b.jpg")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["a", "b"], "compare needs --data"),
        (["a", "b", "--data", "d", "--epochs", "2"], "--epochs is for training first"),
        (["d", "--models", "a,b"], "--out DIR"),
        (["d", "e", "--models", "a,b", "--out", "o"], "one DATA is wanted"),
        (["d", "--models", "a,b", "--out", "o", "--common"], "--common does not go with --models"),
        (["a", "b", "--data", "d", "--html", "nowhere/x.html"], "the folder nowhere of --html does not exist"),
    ],
)
def test_wrong_usage_is_one_sentence(words, sentence, capsys):
    assert main(["compare", *words]) == 2
    assert sentence in capsys.readouterr().err


def test_training_first_leaves_runs_and_a_page(fill, tmp_path, capsys):
    data = fill(tmp_path / "data", red=6, green=6)
    words = ["compare", data, "--models", "densenet_bc_22_12,resnet20_cifar", "--budget-epochs", "1"]
    words += ["--image-size", "16", "--out", tmp_path / "out", "--runs", "0", "--engine", "onnxruntime", "--json"]
    assert main([str(word) for word in words]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["comparison"]["n"] == 2
    assert {model["engine"] for model in document["comparison"]["models"]} == {"onnxruntime"}
    assert json.loads((tmp_path / "out" / "comparison.json").read_text("utf-8")) == document
    page = (tmp_path / "out" / "comparison.html").read_text("utf-8")
    assert "--models densenet_bc_22_12,resnet20_cifar --epochs 1" in page
