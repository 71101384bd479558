"""What all verbs have in common: help, statuses, one-sentence errors, clean output, and a start without torch."""

import inspect
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from taxonet.cli.app import VERBS, main
from taxonet.errors import BundleError, UsageError


def one_sentence(captured):
    """The error of a command: a single line on stderr, nothing on stdout."""
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith("taxonet: ")
    assert "Traceback" not in line
    assert "defect" not in line
    return line.removeprefix("taxonet: ")


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_of_a_verb_names_every_parameter(verb, capsys):
    function = VERBS[verb]
    kept = {  # words of Python itself, and one that is a verb's
        "import": {"name": "--as", "source": "--from"},
        "pull": {"list_": "--list"},
        "predict": {"lists": "--list"},
    }
    renamed = kept.get(verb, {})
    assert main([verb, "--help"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    first_line = " ".join(inspect.getdoc(function).split("\n\n", maxsplit=1)[0].split())
    assert first_line in " ".join(captured.out.split())
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is parameter.POSITIONAL_ONLY:
            assert name.upper() in captured.out
        elif parameter.kind is not parameter.VAR_KEYWORD:
            assert renamed.get(name, f"--{name.replace('_', '-')}") in captured.out
    assert "│" in captured.out


def test_the_help_lists_the_verbs_and_the_statuses(capsys):
    assert main(["--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert all(verb in text for verb in VERBS)
    assert "Exit status: 0 done, 1 done with findings" in text
    assert main([]) == 0
    assert "Usage: taxonet COMMAND" in capsys.readouterr().out


def test_the_version(capsys):
    import taxonet

    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == taxonet.__version__


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("modles", "there is no verb 'modles'; did you mean 'models'?"),
        ("qqqq", "there is no verb 'qqqq'; it must be one of: " + ", ".join(VERBS)),
        ("models --jsn", "models has no option '--jsn'; did you mean '--json'?"),
        ("predict a.jpg --topp 3", "predict has no option '--topp'; did you mean '--top'?"),
        ("predict a.jpg --top 2.6", "--top is '2.6', it must be a whole number"),
        ("train photos --out run --epochs 1.5", "--epochs is '1.5', it must be a whole number"),
        ("train photos --out run --recipe nosuch.toml", "the recipe nosuch.toml does not exist"),
        ("train photos --out run --x\\d 3", "train has no option '--x\\d'"),
        ("calibrate m d --target-precision 95", "--target-precision is 95.0, it must be above 0 and at most 1"),
        ("compare m n --data d --runs=-1", "--runs is -1, it must be at least 0"),
        ("predict a.jpg --top many", "--top is 'many', it must be a whole number"),
        ("info densnet121", "there is no network called 'densnet121'; did you mean 'densenet121'?"),
        ("predict a.jpg --bla 3", "predict has no option '--bla', taxonet predict --help lists them"),
        ("export m.safetensors --to", "--to needs a value"),
        ("export m.safetensors", "export needs --to, taxonet export --help shows what it takes"),
        ("models a b", "models has no place for 'b', taxonet models --help shows what it takes"),
        ("predict a.jpg --top 3 --top 4", "--top is given twice, it takes one value"),
        ("info", "info needs NAME, taxonet info --help shows what it takes"),
        ("predict", "predict needs at least one file, folder, table, shard or list"),
    ],
)
def test_wrong_usage_is_one_sentence_and_status_2(words, sentence, capsys):
    assert main(words.split()) == 2
    assert one_sentence(capsys.readouterr()) == sentence


def test_debug_raises_instead(pickle_file, tmp_path):
    with pytest.raises(UsageError, match="did you mean 'densenet121'"):
        main(["info", "densnet121", "--debug"])
    with pytest.raises(BundleError, match="pickle"):
        main(["--debug", "evaluate", str(pickle_file), str(tmp_path)])


def test_without_debug_the_same_is_a_sentence(pickle_file, tmp_path, capsys):
    assert main(["evaluate", str(pickle_file), str(tmp_path)]) == 3
    assert "it is a PyTorch pickle checkpoint, not a bundle" in one_sentence(capsys.readouterr())


LAZY = """
import contextlib, io, sys
import taxonet
from taxonet.cli.app import main
with contextlib.redirect_stdout(io.StringIO()) as out:
    statuses = [main(["models"]), main(["models", "--json"]), main(["models", "--help"])]
assert "densenet121" in out.getvalue()
dir(taxonet), taxonet.__version__, taxonet.DataError
heavy = {"torch", "sklearn", "scipy", "matplotlib", "pyarrow", "PIL"} & sys.modules.keys()
print(statuses, sorted(heavy))
"""


def test_neither_the_package_nor_the_list_of_networks_loads_torch():
    ran = subprocess.run([sys.executable, "-c", LAZY], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[0, 0, 0] []"


def test_the_installed_command_keeps_output_and_messages_apart(run_taxonet):
    ran = run_taxonet("models", "densenet_bc_22_12", "--json")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert [model["name"] for model in json.loads(ran.stdout)] == ["densenet_bc_22_12"]
    ran = run_taxonet("models", "--family", "densnet")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith("taxonet: there is no family 'densnet'")


def test_python_m_is_the_command():
    ran = subprocess.run([sys.executable, "-m", "taxonet", "modles"], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (2, "taxonet: there is no verb 'modles'; did you mean 'models'?\n")


@pytest.mark.parametrize("pattern", ["*", "densenet121"])
def test_a_reader_that_has_gone_is_no_error(pattern):
    """As in `taxonet models | head -1`, with output buffered as usual."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    script = Path(sys.executable).with_name("taxonet")
    usual = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    with os.fdopen(write_end, "wb") as closed:
        ran = subprocess.run(
            [script, "models", pattern], stdout=closed, stderr=subprocess.PIPE, text=True, check=False, env=usual
        )
    assert (ran.returncode, ran.stderr) == (0, "")


def test_a_terminal_without_our_letters_gets_them_escaped(run_taxonet):
    ran = run_taxonet("info", "densenet_bc_22_12", env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert (ran.returncode, ran.stderr) == (0, "")
    assert r"one image of 32\xd732" in ran.stdout


def test_a_program_that_calls_main_keeps_its_own_logging():
    logger = logging.getLogger("taxonet")
    before = logger.level, list(logger.handlers)
    assert main(["models", "densenet121", "-v"]) == 0
    assert (logger.level, logger.handlers) == before
