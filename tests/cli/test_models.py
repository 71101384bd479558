"""`taxonet models`: the list, by pattern, family and cost."""

import json

import pytest

from taxonet.cli.app import main
from taxonet.sheets import families
from taxonet.weights.catalogue import entries


def listed(capsys, *words):
    assert main(["models", *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_every_network_has_a_line(capsys):
    from taxonet import list_models

    found = listed(capsys)
    assert {model["name"] for model in found} == set(list_models())
    assert {model["family"] for model in found} == set(families())
    for model in found:
        assert model.keys() == {"name", "family", "params", "macs", "input_size", "num_classes", "pretrained"}
    assert {model["name"] for model in found if model["pretrained"]} == {entry.variant for entry in entries()}


def test_a_pattern_a_family_and_limits(capsys):
    names = lambda *words: [model["name"] for model in listed(capsys, *words)]  # noqa: E731
    assert names("densenet1*") == ["densenet121", "densenet169", "densenet161"]
    assert all(name.startswith("mobilenet_v2") for name in names("--family", "mobilenet_v2"))
    assert names("mobilenet*", "--family", "densenet") == []
    small = listed(capsys, "--max-params", "1M", "--max-macs", "100M")
    assert small
    assert all(model["params"] <= 1_000_000 and model["macs"] <= 100_000_000 for model in small)
    assert "densenet_bc_22_12" in {model["name"] for model in small}
    assert names("densenet121", "--max-params", "7978856") == ["densenet121"]
    assert names("densenet121", "--max-params", "7,978,855") == []


def test_the_table(capsys):
    assert main(["models", "densenet_bc_22_12"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    header, row = captured.out.splitlines()
    assert header.split() == ["name", "family", "parameters", "multiply-adds", "pixels", "classes", "pretrained"]
    assert row.split() == ["densenet_bc_22_12", "densenet", "71,686", "31.2", "M", "32", "10"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["densnet121"], "no network matches 'densnet121'; did you mean 'densenet121'?"),
        (["--family", "perceptron"], "there is no family 'perceptron', it must be one of "),
        (["--max-params", "5Q"], "--max-params is '5Q', it must be a number such as 5000000, 5M or 1.2G"),
        (["--max-macs=-5M"], "--max-macs is '-5M', it must be a number such as 5000000, 5M or 1.2G"),
    ],
)
def test_wrong_words(words, sentence, capsys):
    assert main(["models", *words]) == 2
    assert f"taxonet: {sentence}" in capsys.readouterr().err
