"""Answers in files: every end of the writer leaves what the same command goes on with, to the same bytes."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys

import pyarrow.parquet
import pytest

import taxonet
from taxonet.cli.app import main
from taxonet.errors import DataError, UsageError
from taxonet.inference import job as job_module
from taxonet.inference import results
from taxonet.inference.results import AnswerFile, JsonLines

CHILD = """
import sys, taxonet
folder, out, model, resume = sys.argv[1:]
taxonet.predict_files(folder, out=out, model=model, top=2, resume=resume == "yes",
                      progress=lambda done, broken, total: print(done, flush=True))
"""


@pytest.fixture(scope="module")
def photos(tmp_path_factory, paint, broken_jpeg):
    """300 hard links of nine pictures, every 20th broken, one with a name that CSV must quote."""
    root = tmp_path_factory.mktemp("job")
    kinds = [paint(root / "kinds" / f"{i}.png", ("red", "green", "blue")[i % 3], seed=i) for i in range(9)]
    folder = root / "photos"
    folder.mkdir()
    for i in range(300):
        name = '007 a,"b"\n.png' if i == 7 else f"{i:03d}.png"
        os.link(broken_jpeg if i % 20 == 19 else kinds[i % 9], folder / name)
    return folder


@pytest.fixture(scope="module")
def whole(photos, small_bundle, tmp_path_factory):
    """The files of uninterrupted jobs, by extension."""
    folder = tmp_path_factory.mktemp("whole")
    for suffix in ("csv", "jsonl", "parquet"):
        job(photos, folder / f"out.{suffix}", small_bundle)
    return {path.suffix: path for path in folder.iterdir() if path.stem == "out"}


def job(inputs, out, bundle, **options):
    return taxonet.predict_files(inputs, out=out, model=bundle, **{"top": 2, "engine": "torch", **options})


def test_the_files_say_what_predict_says(photos, whole, small_bundle):
    answers = taxonet.predict(photos, model=small_bundle, top=2, engine="torch")
    assert [json.loads(line) for line in whole[".jsonl"].read_text("utf-8").splitlines()] == [
        json.loads(json.dumps(answer.as_dict())) for answer in answers
    ]
    expected = []
    for answer in answers:
        for rank, p in enumerate(answer.predictions, start=1):
            expected.append((answer.path, str(rank), p.label, str(p.index), f"{p.probability:.6f}", "", "no"))
        if answer.error:
            expected.append((answer.path, "", "", "", "", answer.error, ""))
    with whole[".csv"].open(newline="", encoding="utf-8") as file:
        assert [tuple(row) for row in csv.reader(file)][1:] == expected
    rows = pyarrow.parquet.read_table(whole[".parquet"]).to_pylist()
    assert [(row["path"], str(row["rank"] or ""), row["label"] or "") for row in rows] == [row[:3] for row in expected]
    assert sum(row["error"] is not None for row in rows) == 15


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_killed_and_resumed_ends_in_the_same_bytes(photos, whole, small_bundle, tmp_path, suffix):
    out = tmp_path / f"out.{suffix}"
    for resume, answers in (("no", 1), ("yes", 130)) if suffix == "csv" else (("yes", 157),):
        words = [sys.executable, "-c", CHILD, photos, out, small_bundle, resume]
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as child:
            assert any(int(line) >= answers for line in child.stdout)
            child.send_signal(signal.SIGKILL)
    done = job(photos, out, small_bundle, resume=True)
    assert (done.answers, done.broken) == (300, 15)
    assert 0 < done.resumed < 300
    assert out.read_bytes() == whole[f".{suffix}"].read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {out.name, f"{out.name}.run.json"}


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_a_file_cut_anywhere_is_repaired(photos, whole, small_bundle, tmp_path, suffix):
    source, out = whole[f".{suffix}"], tmp_path / f"out.{suffix}"
    data = source.read_bytes()
    shutil.copy(f"{source}.run.json", f"{out}.run.json")
    seventh = data.index(b"007 a,")  # in the midst of a name with a line end
    cuts = [0, 1, 30, 70, *range(seventh - 2, seventh + 16, 3), len(data) // 2, len(data) - 2, len(data) - 1, len(data)]
    for cut in cuts:
        out.write_bytes(data[:cut])
        job(photos, out, small_bundle, resume=True)
        assert out.read_bytes() == data
    out.write_bytes(data[: len(data) // 2] + b"\0" * 5000)  # what a power cut may leave
    job(photos, out, small_bundle, resume=True)
    assert out.read_bytes() == data


KILLED_CHILD = """
import os, re, signal, sys
name, *sys.argv[1:] = sys.argv[1:]
def kill(event, arguments):
    if event == "os.rename" and re.search(rf"/\\.{re.escape(name)}\\.[0-9a-f]+\\.tmp$", os.fspath(arguments[0])):
        os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(kill)
"""


@pytest.mark.parametrize("end", ["", ".run.json", ".part.jsonl"])
def test_what_a_kill_leaves_of_the_file_that_is_written_is_removed(photos, whole, small_bundle, tmp_path, end):
    """The process is killed when the file is whole under its temporary name and has not its own yet."""
    out, name = tmp_path / "out.parquet", f"out.parquet{end}"
    if end == ".part.jsonl":  # a finished table becomes a journal again
        for tail in ("", ".run.json"):
            shutil.copy(f"{whole['.parquet']}{tail}", f"{out}{tail}")
    words = [sys.executable, "-c", KILLED_CHILD + CHILD, name, photos, out, small_bundle, "yes"]
    assert subprocess.run(words, capture_output=True, check=False).returncode == -signal.SIGKILL
    (leftover,) = tmp_path.glob(".*.tmp")
    assert leftover.stat().st_size > 0
    assert leftover.name.startswith(f".{name}.")
    assert job(photos, out, small_bundle, resume=True).resumed == (0 if end == ".run.json" else 300)
    assert out.read_bytes() == whole[".parquet"].read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {out.name, f"{out.name}.run.json"}


def damaged(table):
    return table.write_bytes(b"PAR1" + b"\0" * 64 + b"PAR1")


def of_other_columns(table):
    pyarrow.parquet.write_table(pyarrow.table({"path": ["a.jpg"], "rank": ["first"]}), table)


def with_damaged_pages(table):
    data = bytearray(table.read_bytes())
    data[4:2000] = bytes(1996)
    table.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (damaged, r"out\.parquet cannot be resumed, it is damaged: "),
        (with_damaged_pages, r"out\.parquet cannot be resumed, it is damaged: "),
        (of_other_columns, r"out\.parquet cannot be resumed: it is no table of answers, its columns are others"),
    ],
)
def test_a_table_that_cannot_be_taken_up_is_refused(photos, whole, small_bundle, tmp_path, damage, sentence):
    out = tmp_path / "out.parquet"
    for tail in ("", ".run.json"):
        shutil.copy(f"{whole['.parquet']}{tail}", f"{out}{tail}")
    damage(out)
    data = out.read_bytes()
    with pytest.raises(DataError, match=sentence) as caught:
        job(photos, out, small_bundle, resume=True)
    assert "\n" not in str(caught.value)
    assert out.read_bytes() == data
    assert {path.name for path in tmp_path.iterdir()} == {out.name, f"{out.name}.run.json"}


def test_a_generator_is_resumed_as_the_folder_is(photos, whole, small_bundle, tmp_path):
    out, data = tmp_path / "out.csv", whole[".csv"].read_bytes()
    out.write_bytes(data[: len(data) // 2])
    shutil.copy(f"{whole['.csv']}.run.json", f"{out}.run.json")
    assert 0 < job((path for path in sorted(photos.iterdir())), out, small_bundle, resume=True).resumed < 300
    assert out.read_bytes() == data


def test_a_finished_file_is_left_and_inputs_may_grow_at_their_end(photos, whole, small_bundle, tmp_path, paint):
    more = paint(tmp_path / "more.png", "blue")
    for suffix in ("csv", "parquet"):
        out = tmp_path / f"out.{suffix}"
        for end in ("", ".run.json"):
            shutil.copy(f"{whole[f'.{suffix}']}{end}", f"{out}{end}")
        assert job(photos, out, small_bundle, resume=True).resumed == 300
        assert out.read_bytes() == whole[f".{suffix}"].read_bytes()
        assert job([photos, more], out, small_bundle, resume=True).answers == 301
        job([photos, more], tmp_path / f"again.{suffix}", small_bundle)
        assert out.read_bytes() == (tmp_path / f"again.{suffix}").read_bytes()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"resume": False}, "is there already: --resume goes on with it, or remove it"),
        ({"top": 3}, "was begun with --top 2, not 3"),
        ({"threshold": 0.5}, r"was begun with --threshold 0\.0, not 0\.5"),
        ({"inputs": "fewer"}, "answer 300 in .* is of .*299.png, where the inputs end: the inputs have changed"),
        ({"inputs": "other"}, "answer 1 in .* is of .*000.png, where the inputs have .*001.png"),
        ({"bundle": "other"}, "was begun with other weights, classes or preprocessing of densenet_bc_22_12"),
        ({"record": "gone"}, r"cannot be resumed: out.csv.run.json, which says what answered, is not beside it"),
    ],
)
def test_what_does_not_belong_together_is_refused(photos, whole, small_bundle, tmp_path, change, sentence):
    out, data = tmp_path / "out.csv", whole[".csv"].read_bytes()
    out.write_bytes(data)
    if change.get("record") != "gone":
        shutil.copy(f"{whole['.csv']}.run.json", f"{out}.run.json")
    inputs = sorted(photos.iterdir())
    inputs = {"fewer": inputs[:-1], "other": inputs[1:]}.get(change.get("inputs"), inputs)
    bundle = other_weights(small_bundle, tmp_path) if "bundle" in change else small_bundle
    options = {key: value for key, value in change.items() if key in ("resume", "top", "threshold")}
    with pytest.raises(UsageError, match=sentence):
        job(inputs, out, bundle, **{"resume": True, **options})
    assert out.read_bytes() == data


def other_weights(bundle, folder):
    import torch

    from taxonet.weights.networks import open_model, save_network

    info, network = open_model(bundle)
    with torch.no_grad():
        network.classifier.bias[0] += 0.1  # all else is the same
    save_network(folder / "other.safetensors", info, network)
    return folder / "other.safetensors"


def test_two_writers_of_one_file(photos, whole, small_bundle, tmp_path):
    out = tmp_path / "out.csv"
    for end in ("", ".run.json"):
        shutil.copy(f"{whole['.csv']}{end}", f"{out}{end}")
    with out.open("rb") as other:
        import fcntl

        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(UsageError, match=r"out\.csv is being written by another process"):
            job(photos, out, small_bundle, resume=True)


def test_a_finished_table_that_grows_is_restored_under_the_lock(photos, whole, small_bundle, tmp_path):
    """Where another writer puts a journal there meanwhile, nobody writes into one that has lost its name."""
    out = tmp_path / "out.parquet"
    for end in ("", ".run.json"):
        shutil.copy(f"{whole['.parquet']}{end}", f"{out}{end}")
    journal = tmp_path / "out.parquet.part.jsonl"
    journal.touch()  # of a resumed run that was killed as it began
    with journal.open("rb") as other:
        import fcntl

        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(UsageError, match="is being written by another process"):
            job(photos, out, small_bundle, resume=True)
    assert job(photos, out, small_bundle, resume=True).resumed == 300
    assert out.read_bytes() == whole[".parquet"].read_bytes()
    assert not journal.exists()


@pytest.mark.parametrize("name", ["out.csv", "out.parquet"])
@pytest.mark.parametrize("resume", [False, True])
def test_a_job_that_ends_while_another_opens_its_model_is_not_touched(
    photos, small_bundle, tmp_path, monkeypatch, name, resume
):
    out, original, other = tmp_path / name, job_module.load, other_weights(small_bundle, tmp_path)
    few = sorted(photos.iterdir())[:5]

    def load(*arguments):
        monkeypatch.setattr(job_module, "load", original)
        job(few, out, small_bundle)
        return original(*arguments)

    monkeypatch.setattr(job_module, "load", load)
    sentence = "was begun with other weights" if resume else "is there already"
    with pytest.raises(UsageError, match=sentence):
        job(few, out, other, resume=resume)
    before = out.read_bytes()
    assert job(few, out, small_bundle, resume=True).resumed == 5
    assert out.read_bytes() == before


def test_the_file_that_is_locked_is_the_one_that_has_the_name(tmp_path, monkeypatch):
    path, original = tmp_path / "out.jsonl", results._lock
    replaced = []

    def lock(handle, of):
        original(handle, of)
        if not replaced:  # another writer finishes between the opening and the lock
            replaced.append(of)
            path.unlink()

    monkeypatch.setattr(results, "_lock", lock)
    with AnswerFile(path, JsonLines()) as answers:
        assert os.path.samestat(os.fstat(answers._file.fileno()), path.stat())


@pytest.mark.parametrize(
    ("name", "kind", "sentence"),
    [
        ("out.txt", UsageError, "out.txt', its extension must be .csv, .jsonl or .parquet"),
        ("nowhere/out.csv", UsageError, "the folder .*nowhere of --out does not exist"),
        ("folder.csv", UsageError, "folder.csv, which is a folder, and a file is wanted"),
        ("x" * 300 + ".csv", UsageError, "cannot write .*xxx.csv.run.json': File name too long"),
    ],
)
def test_where_no_answers_can_be_written(photos, small_bundle, tmp_path, name, kind, sentence):
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(kind, match=sentence):
        job(photos, tmp_path / name, small_bundle)


def test_a_wrong_value_or_input_leaves_nothing_behind(photos, small_bundle, tmp_path):
    for options, kind in (({"top": 0}, UsageError), ({"threshold": 7}, UsageError), ({"lists": ["gone"]}, DataError)):
        with pytest.raises(kind):
            job(photos, tmp_path / "out.csv", small_bundle, **options)
    assert list(tmp_path.iterdir()) == []


def test_the_command(photos, whole, small_bundle, tmp_path, capsys):
    words = ["predict", str(photos), "-m", str(small_bundle), "--top", "2", "--out", str(tmp_path / "out.csv")]
    assert main(words) == 1
    assert capsys.readouterr() == ("", f"300 pictures, 15 of them could not be read: {tmp_path / 'out.csv'}\n")
    assert main([*words, "--resume"]) == 1  # broken ones stay a finding
    assert "300 pictures (300 of them were there), 15 of them" in capsys.readouterr().err
    assert main([*words[:-2], "--resume"]) == 2
    assert "--resume goes on with a file of answers: it needs --out" in capsys.readouterr().err


def test_an_interrupt_leaves_a_file_that_is_taken_up(photos, small_bundle, tmp_path):
    """Ctrl-C in the midst: the file is taken up afterwards."""
    child = CHILD.replace("print(done, flush=True)", "print(done, flush=True) or done < 100 or signal.raise_signal(2)")
    words = [
        sys.executable,
        "-c",
        "import signal; signal.signal(2, signal.default_int_handler)" + child,
        photos,
        tmp_path / "out.csv",
        small_bundle,
        "no",
    ]
    ran = subprocess.run(words, capture_output=True, text=True, check=False)
    assert ran.returncode != 0
    assert "KeyboardInterrupt" in ran.stderr
    assert ran.stdout.split()[-1] == "100"
    assert job(photos, tmp_path / "out.csv", small_bundle, resume=True).resumed == 100


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_a_job_inside_the_folder_that_it_reads_does_not_read_itself(small_bundle, paint, tmp_path, suffix):
    for i in range(3):
        paint(tmp_path / f"{i}.png", "red", seed=i)
    out = tmp_path / f"aaa.{suffix}"
    first = job(tmp_path, out, small_bundle)
    assert (first.answers, first.broken) == (3, 0)
    again = job(tmp_path, out, small_bundle, resume=True)
    assert (again.answers, again.resumed) == (3, 3)
