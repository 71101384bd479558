"""What deploy/ and the docs say to type is there: options of `taxonet serve`, addresses, figures."""

import re
from pathlib import Path

import pytest

from taxonet.cli.app import main

ROOT = Path(__file__).resolve().parents[2]
FILES = ["deploy/Containerfile", "deploy/taxonet.service", "docs/serving.md", "docs/deploy.md"]


@pytest.mark.parametrize("file", FILES)
def test_every_option_of_serve_exists(file, capsys):
    assert main(["serve", "--help"]) == 0
    known = set(re.findall(r"--[a-z][a-z-]*", capsys.readouterr().out))
    text = (ROOT / file).read_text("utf-8")
    if file.startswith("deploy/"):
        text = "\n".join(
            line for line in text.splitlines() if re.search(r"serve\b(?!,)", line) and not line.startswith("#")
        )
    found = set(re.findall(r"`(--[a-z-]+)", text) if file.startswith("docs/") else re.findall(r"--[a-z-]+", text))
    assert found
    assert found <= known


def test_every_figure_that_the_docs_name_is_told(client):
    told = client.get("/metrics").text
    named = re.findall(r"`(taxonet_[a-z_]+)", (ROOT / "docs" / "serving.md").read_text("utf-8"))
    assert len(named) > 5
    assert [name for name in named if name not in told and name != "taxonet_input_drift"] == []
    assert "# TYPE taxonet_input_drift gauge" in told
