"""Folders and tables become samples; what does not is a finding, never silence."""

import os
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from taxonet.data import Sample, expand_inputs, read_data
from taxonet.errors import DataError, UsageError


def touch(root, *names):
    """Files of no content: reading a data set opens no picture."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def names(samples, root):
    return [(sample.path.relative_to(root).as_posix(), sample.label) for sample in samples]


def reasons(found, root):
    return {Path(f.path).relative_to(root).as_posix(): f.reason for f in found.findings}


# --- folders -----------------------------------------------------------------------------------------------


def test_class_folders(tmp_path):
    found = read_data(touch(tmp_path, "dog/1.png", "cat/b.JPG", "cat/a.webp", "ant/x.tiff"))
    assert list(found.splits) == ["all"]
    expected = [("ant/x.tiff", "ant"), ("cat/a.webp", "cat"), ("cat/b.JPG", "cat"), ("dog/1.png", "dog")]
    assert names(found.samples, tmp_path) == expected
    assert found.classes == ("ant", "cat", "dog")
    assert found.findings == ()


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [("train", "val", "test"), ("Training", "valid", "testing"), ("TRAIN", "Validation", "Test")],
)
def test_splits_and_their_other_names(tmp_path, train, val, test):
    touch(tmp_path, f"{test}/cat/4.png", f"{train}/cat/1.png", f"{train}/dog/2.png", f"{val}/dog/3.png")
    found = read_data(tmp_path)
    assert list(found.splits) == ["train", "val", "test"]
    assert names(found.splits["train"], tmp_path / train) == [("cat/1.png", "cat"), ("dog/2.png", "dog")]
    assert names(found.split("validation"), tmp_path / val) == [("dog/3.png", "dog")]
    assert names(found.split("test"), tmp_path / test) == [("cat/4.png", "cat")]


def test_two_names_of_one_split_are_added(tmp_path):
    found = read_data(touch(tmp_path, "train/cat/1.png", "val/cat/2.png", "validation/cat/3.png"))
    assert names(found.split("val"), tmp_path) == [("val/cat/2.png", "cat"), ("validation/cat/3.png", "cat")]


def test_classes_are_those_of_the_training_split(tmp_path):
    found = read_data(touch(tmp_path, "train/cat/1.png", "train/dog/2.png", "val/wolf/3.png"))
    assert found.classes == ("cat", "dog")
    assert read_data(tmp_path / "val").classes == ("wolf",)


def test_an_absent_split_names_those_that_are_there(tmp_path):
    found = read_data(touch(tmp_path, "train/cat/1.png", "val/cat/2.png"))
    with pytest.raises(UsageError, match=r"has no split 'test', it has: train, val$"):
        found.split("test")
    with pytest.raises(UsageError, match=r"has no split 'trian', .*did you mean 'train'"):
        found.split("trian")


@pytest.mark.parametrize("name", ["test", "Train", "validation"])
def test_a_class_may_be_called_like_a_split(tmp_path, name):
    found = read_data(touch(tmp_path, f"{name}/1.png", "exam/2.png"))
    assert list(found.splits) == ["all"]
    assert set(found.classes) == {name, "exam"}


def test_unlabelled_test_pictures_do_not_turn_the_splits_into_classes(tmp_path):
    found = read_data(touch(tmp_path, "train/cat/1.png", "train/dog/2.png", "test/3.png", "test/4.png"))
    assert found.classes == ("cat", "dog")
    assert list(found.splits) == ["train"]
    assert reasons(found, tmp_path) == dict.fromkeys(("test/3.png", "test/4.png"), "it is in no class folder")


def test_pictures_of_a_class_may_lie_in_folders_below_it(tmp_path):
    found = read_data(touch(tmp_path, "cat/tabby/2.png", "cat/1.png", "cat/tabby/old/3.png", "dog/4.png"))
    labels = dict(names(found.samples, tmp_path))
    assert labels == {"cat/1.png": "cat", "cat/tabby/2.png": "cat", "cat/tabby/old/3.png": "cat", "dog/4.png": "dog"}


def test_hidden_files_and_folders_are_not_data(tmp_path):
    found = read_data(touch(tmp_path, "cat/1.png", "cat/.2.png", ".cache/3.png", "cat/.thumbs/4.png", ".DS_Store"))
    assert names(found.samples, tmp_path) == [("cat/1.png", "cat")]
    assert found.findings == ()


def test_stray_files_are_findings(tmp_path):
    touch(
        tmp_path, "train/cat/1.png", "train/cat/notes.txt", "train/cat/README", "train/5.png", "list.csv", "extra/6.png"
    )
    assert reasons(read_data(tmp_path), tmp_path) == {
        "train/cat/notes.txt": "'.txt' is not a picture's extension",
        "train/cat/README": "'README' is not a picture's extension",
        "train/5.png": "it is in no class folder",
        "list.csv": "it is in no class folder",
        "extra": "it stands beside the splits and is in none of them",
    }


def test_an_empty_class_folder_is_a_finding(tmp_path):
    touch(tmp_path, "cat/1.png", "dog/notes.txt")
    (tmp_path / "emu").mkdir()
    found = read_data(tmp_path)
    assert found.classes == ("cat",)
    assert reasons(found, tmp_path) == {
        "dog/notes.txt": "'.txt' is not a picture's extension",
        "dog": "the class folder holds no pictures",
        "emu": "the class folder holds no pictures",
    }


def test_a_link_back_to_a_folder_above_counts_nothing_twice(tmp_path):
    touch(tmp_path, "cat/old/1.png", "cat/2.png")
    (tmp_path / "cat" / "old" / "again").symlink_to(tmp_path / "cat", target_is_directory=True)
    assert sorted(names(read_data(tmp_path).samples, tmp_path)) == [("cat/2.png", "cat"), ("cat/old/1.png", "cat")]
    assert len(expand_inputs([tmp_path])) == 2


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may list every folder")
def test_a_folder_that_may_not_be_listed_is_a_finding(tmp_path):
    touch(tmp_path, "cat/1.png", "cat/closed/2.png")
    closed = tmp_path / "cat" / "closed"
    closed.chmod(0)
    try:
        assert reasons(read_data(tmp_path), tmp_path) == {
            "cat/closed": "the folder cannot be listed: Permission denied"
        }
    finally:
        closed.chmod(0o700)


def test_the_order_does_not_depend_on_the_file_system(tmp_path):
    files = [f"{label}/{number}.png" for label in ("cat", "dog", "ant") for number in range(12)]
    one, two = touch(tmp_path / "one", *files), touch(tmp_path / "two", *reversed(files))
    assert (
        names(read_data(one).samples, one)
        == names(read_data(two).samples, two)
        == sorted(((name, name.split("/")[0]) for name in files), key=lambda item: (item[1], item[0]))
    )


def test_what_cannot_be_used_is_one_sentence(tmp_path):
    touch(tmp_path, "photos/1.png", "photos/2.png", "notes.txt", "hollow/cat/x.txt")
    (tmp_path / "empty").mkdir()
    cases = {
        "empty": r"empty holds no pictures in class folders \(formats: .*jpg.*\)$",
        "hollow": r"hollow holds no pictures in class folders",
        "photos": r"photos holds pictures but no class folders, each class needs a folder with its name$",
        "notes.txt": r"notes.txt is neither a folder nor a .csv or .parquet file$",
        "photo": r"photo does not exist; did you mean 'photos'\?$",
        "nowhere/else": r"else does not exist$",
        "list.csv": r"list.csv does not exist$",
    }
    for name, sentence in cases.items():
        with pytest.raises(DataError, match=sentence):
            read_data(tmp_path / name)


# --- tables ------------------------------------------------------------------------------------------------


def write_table(path, columns):
    """The same table as CSV or Parquet, by the suffix of `path`."""
    if path.suffix.lower() == ".csv":
        lines = [",".join(columns), *(",".join(row) for row in zip(*columns.values(), strict=True))]
        path.write_text("\n".join(lines) + "\n", "utf-8")
    else:
        pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return path


@pytest.fixture(params=["list.csv", "list.parquet", "LIST.CSV", "list.pq"])
def table(request, tmp_path):
    return lambda **columns: write_table(tmp_path / request.param, columns)


def test_a_table_of_paths_and_labels(table, tmp_path):
    found = read_data(table(label=["dog", "cat", "cat"], path=["b/1.jpg", "a.png", str(tmp_path / "far.png")]))
    assert list(found.splits) == ["all"]
    expected = [("b/1.jpg", "dog"), ("a.png", "cat"), ("far.png", "cat")]
    assert names(found.samples, tmp_path) == expected  # in the table's order, relative to the table
    assert found.classes == ("cat", "dog")


def test_a_table_with_splits(table, tmp_path):
    found = read_data(
        table(
            path=["1.jpg", "2.jpg", "3.jpg", "4.jpg", "5.jpg"],
            label=["a", "b", "a", "b", "a"],
            split=["test", "train", "Valid", "fold1", "validation"],
            extra=["x"] * 5,
        )
    )
    assert {name: names(samples, tmp_path) for name, samples in found.splits.items()} == {
        "train": [("2.jpg", "b")],
        "val": [("3.jpg", "a"), ("5.jpg", "a")],
        "test": [("1.jpg", "a")],
    }
    assert [(f.path.rpartition(", ")[2], f.reason) for f in found.findings] == [
        ("row 4", "'fold1' is not a split, it must be train, val or test")
    ]


def test_empty_cells_are_findings(table):
    found = read_data(table(path=["1.jpg", "", "3.jpg", "4.jpg"], label=["a", "b", "  ", "b"]))
    assert [sample.label for sample in found.samples] == ["a", "b"]
    expected = [(f"row {row}", "the path or the label is empty") for row in (2, 3)]
    assert [(f.path.rpartition(", ")[2], f.reason) for f in found.findings] == expected


def test_missing_values_of_parquet_are_findings(tmp_path):
    columns = {"path": ["1.jpg", None], "label": [None, "a"]}
    with pytest.raises(DataError, match="has no row that can be used, the first: the path or the label is empty"):
        read_data(write_table(tmp_path / "list.parquet", columns))


def test_labels_of_parquet_may_be_numbers(tmp_path):
    found = read_data(write_table(tmp_path / "list.parquet", {"path": ["1.jpg", "2.jpg"], "label": [7, 10]}))
    assert found.classes == ("10", "7")


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ({"paths": ["1"], "label": ["a"]}, r"has no column 'path'; did you mean 'paths'\?$"),
        ({"path": ["1"], "Label": ["a"]}, r"has no column 'label'; did you mean 'Label'\?$"),
        ({"path": ["1"], "x": ["a"]}, r"has no column 'label', only 'path', 'x'$"),
        ({"path": [], "label": []}, r"has no rows$"),
        (
            {"path": ["1"], "label": ["a"], "split": ["1"]},
            r"has no row that can be used, the first: '1' is not a split",
        ),
    ],
)
def test_a_table_that_cannot_be_used(table, columns, sentence):
    with pytest.raises(DataError, match=sentence):
        read_data(table(**columns))


@pytest.mark.parametrize(
    ("content", "samples"),
    [
        pytest.param(b"\xef\xbb\xbfpath,label\n1.jpg,a\n", [("1.jpg", "a")], id="byte order mark"),
        pytest.param(b'path,label\n"a, b.jpg","cat, black"\n', [("a, b.jpg", "cat, black")], id="quoted commas"),
        pytest.param(b'path,label\n1.jpg,"the ""big"" one"\n', [("1.jpg", 'the "big" one')], id="quoted quotes"),
        pytest.param(b"path,label\r\n1.jpg,a\r\n\r\n2.jpg,b", [("1.jpg", "a"), ("2.jpg", "b")], id="Windows lines"),
        pytest.param(b" path , label \n 1.jpg , a \n", [("1.jpg", "a")], id="blanks around"),
        pytest.param(b",path,label\n0,1.jpg,a\n", [("1.jpg", "a")], id="a column without a name"),
        pytest.param("path,label\n1.jpg,Käfer\n".encode(), [("1.jpg", "Käfer")], id="umlauts"),
        pytest.param(b"path,label\n1.jpg,a,,\n", [("1.jpg", "a")], id="empty cells at the end"),
    ],
)
def test_forms_of_csv(tmp_path, content, samples):
    (tmp_path / "list.csv").write_bytes(content)
    found = read_data(tmp_path / "list.csv")
    assert names(found.samples, tmp_path) == samples
    assert found.findings == ()


def test_rows_of_another_length_are_findings(tmp_path):
    (tmp_path / "list.csv").write_text("path,label\n1.jpg,a\n2.jpg,cat, black\n3.jpg\n")
    found = read_data(tmp_path / "list.csv")
    assert names(found.samples, tmp_path) == [("1.jpg", "a")]
    assert [(f.path.rpartition(", ")[2], f.reason) for f in found.findings] == [
        ("row 2", "it has more cells than the header, put quotes around a text with a comma"),
        ("row 3", "the path or the label is empty"),
    ]


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("list.csv", "path,label\n1.jpg,Käfer\n".encode("latin-1"), "cannot be read as CSV: 'utf-8' codec"),
        ("list.csv", b"path,label\n1.jpg," + b"x" * 200_000, "cannot be read as CSV: field larger than"),
        ("list.csv", b"", "has no column 'path'"),
        ("list.csv", b"path;label\n1.jpg;a\n", "has one column, 'path;label': its cells must be separated by commas"),
        ("list.csv", b"path,label,label\n1.jpg,a,b\n", "has 2 columns called 'label'"),
        ("list.parquet", b"path,label\n1.jpg,a\n", "cannot be read as Parquet: "),
        ("list.parquet", b"", "cannot be read as Parquet: "),
        ("list.parquet", b"PAR1" + b"\0" * 64 + b"PAR1", "cannot be read as Parquet: "),
    ],
)
def test_a_damaged_table(tmp_path, name, content, sentence):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=sentence) as caught:
        read_data(tmp_path / name)
    assert "\n" not in str(caught.value)


# --- inputs of predict -------------------------------------------------------------------------------------


def test_inputs_keep_their_order(tmp_path):
    touch(
        tmp_path, "b.png", "a.png", "photos/2.jpg", "photos/1.jpg", "photos/deep/0.jpg", "photos/x.txt", "photos/.h.jpg"
    )
    found = expand_inputs([tmp_path / "b.png", tmp_path / "photos", str(tmp_path / "a.png"), tmp_path / "gone.png"])
    # what is no picture stays: it is answered with an error, not skipped
    expected = ["b.png", "photos/1.jpg", "photos/2.jpg", "photos/x.txt", "photos/deep/0.jpg", "a.png", "gone.png"]
    assert [path.relative_to(tmp_path).as_posix() for path in found] == expected


def test_patterns(tmp_path):
    touch(tmp_path, "b.png", "a.png", "c.jpg", "deep/d.png", "[1].png")
    pattern = lambda text: [p.relative_to(tmp_path).as_posix() for p in expand_inputs([tmp_path / text])]  # noqa: E731
    assert pattern("[ab].png") == ["a.png", "b.png"]
    assert pattern("**/*.png") == ["[1].png", "a.png", "b.png", "deep/d.png"]
    assert pattern("*") == ["[1].png", "a.png", "b.png", "c.jpg"]
    assert pattern("[1].png") == ["[1].png"]  # a file of that name comes before the pattern
    assert expand_inputs([]) == []


def test_inputs_that_mean_no_file(tmp_path):
    touch(tmp_path, "notes/x.txt")
    with pytest.raises(DataError, match=r"notes holds no pictures \(formats"):
        expand_inputs([tmp_path / "notes"])
    with pytest.raises(DataError, match=r"no file matches .*\*\.jpg$"):
        expand_inputs([tmp_path / "*.jpg"])
    with pytest.raises(DataError, match=r"no file matches .*, only folders do$"):
        expand_inputs([tmp_path / "n*"])


def test_samples_compare_by_value():
    assert Sample(Path("a.png"), "cat") == Sample(Path("a.png"), "cat") != Sample(Path("a.png"), "dog")
