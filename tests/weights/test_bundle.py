import dataclasses
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from taxonet.errors import BundleError, DataError, UsageError
from taxonet.weights import bundle as module
from taxonet.weights import safetensors_header, strict_json
from taxonet.weights.bundle import (
    BundleInfo,
    check_state,
    read_info,
    read_tensors,
    save_bundle,
    specs_of,
    tensor_specs,
)

State = dict[str, torch.Tensor]
Forge = Callable[..., Path]


def same(left: State, right: State) -> bool:
    return left.keys() == right.keys() and all(
        left[name].dtype == right[name].dtype and torch.equal(left[name], right[name]) for name in left
    )


# --- writing and reading back ------------------------------------------------------------------------------


def test_round_trip(bundle: Path, info: BundleInfo, state: State) -> None:
    assert read_info(bundle) == info
    assert same(read_tensors(bundle), state)
    assert tensor_specs(bundle) == specs_of(state)
    assert list(read_tensors(bundle)) == list(state)
    assert list(bundle.parent.iterdir()) == [bundle]


def test_the_file_works_without_taxonet(bundle: Path, state: State) -> None:
    assert same(load_file(bundle), state)
    with safe_open(bundle, "pt") as handle:
        assert list(handle.metadata()) == ["taxonet"]
        assert list(json.loads(handle.metadata()["taxonet"])) == [
            *("schema", "model", "classes", "preprocessing", "calibration"),
            *("metrics", "licence", "provenance", "created"),
        ]
    network = torch.nn.Linear(3, 2)
    save_bundle(bundle, BundleInfo("linear", ("a", "b"), "rgb"), network.state_dict())
    network.load_state_dict(load_file(bundle), strict=True)


def test_the_same_input_gives_the_same_bytes(bundle: Path, info: BundleInfo, state: State) -> None:
    first = bundle.read_bytes()
    save_bundle(bundle, info, {name: value.clone() for name, value in state.items()})
    assert bundle.read_bytes() == first


def test_reading_the_information_loads_no_torch(bundle: Path) -> None:
    code = (
        "import sys; from taxonet.weights.bundle import read_info, tensor_specs;"
        f"read_info({str(bundle)!r}); tensor_specs({str(bundle)!r});"
        "assert 'torch' not in sys.modules and 'safetensors' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_shared_strided_and_gradient_tensors_are_stored_whole(bundle: Path, info: BundleInfo) -> None:
    weight = torch.nn.Parameter(torch.arange(12.0).reshape(3, 4))
    state = {
        "tied.a": weight,
        "tied.b": weight,
        "transposed": weight.t(),
        "slice": weight[1:, 1:3],
        "expanded": torch.ones(1, 2).expand(5, 2),
        "nhwc": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
    }
    save_bundle(bundle, info, state)
    assert same(read_tensors(bundle), {name: value.detach() for name, value in state.items()})


def test_read_tensors_own_their_memory(bundle: Path, state: State) -> None:
    tensors = read_tensors(bundle)
    bundle.write_bytes(b"")
    tensors["half"].zero_()
    assert torch.equal(tensors["stem.weight"], state["stem.weight"])


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ([1, 2], "'x' is a list of 2, not a tensor"),
        (torch.zeros(2, dtype=torch.complex64), "has the dtype torch.complex64, which a bundle cannot hold"),
        (torch.zeros(2, device="meta"), "is not a dense tensor with values"),
        (torch.zeros(2, 2).to_sparse(), "is not a dense tensor with values"),
    ],
)
def test_what_cannot_be_stored_leaves_the_old_bundle(
    bundle: Path, info: BundleInfo, state: State, value: Any, sentence: str
) -> None:
    with pytest.raises(BundleError, match=f"cannot write '.*': .*{sentence}"):
        save_bundle(bundle, info, {"x": value})
    assert same(read_tensors(bundle), state)


def test_no_tensors_odd_names_and_huge_information(bundle: Path, info: BundleInfo, state: State) -> None:
    with pytest.raises(BundleError, match="there is no tensor to store"):
        save_bundle(bundle, info, {})
    for name in ("", "__metadata__", "\ud800"):
        with pytest.raises(BundleError, match="cannot be the name of a tensor"):
            save_bundle(bundle, info, {name: torch.zeros(1)})
    huge = dataclasses.replace(info, provenance={"log": "x" * safetensors_header.MAX_HEADER_BYTES})
    with pytest.raises(BundleError, match="over the limit"):
        save_bundle(bundle, huge, state)
    assert read_info(bundle) == info


def test_where_it_cannot_be_written(tmp_path: Path, info: BundleInfo, state: State) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        save_bundle(tmp_path / "no" / "model.safetensors", info, state)
    with pytest.raises((DataError, BundleError)):
        save_bundle(tmp_path / ("n" * 250), info, state)
    assert not list(tmp_path.iterdir())


# --- the information ---------------------------------------------------------------------------------------


def test_derived_figures(info: BundleInfo) -> None:
    assert info.num_classes == 4
    assert info.in_channels == 3
    assert info.create_options == {"num_classes": 4, **info.options}
    assert BundleInfo("a", ("x",), "rgb").in_channels == 3
    assert BundleInfo("a", ("x",), "rgb", options={"in_channels": 1}).in_channels == 1


def test_json_round_trip_and_defaults(info: BundleInfo) -> None:
    assert BundleInfo.from_json(info.to_json()) == info
    assert "Käfer" in info.to_json()
    plain = BundleInfo("a", ["x"], "rgb", options={"kernels": (3, 5)}, metrics={"top1": np.float64(0.5)})  # type: ignore[arg-type]
    assert plain.options == {"kernels": [3, 5]}
    assert BundleInfo.from_json(plain.to_json()) == plain


def test_the_information_is_a_copy() -> None:
    metrics = {"ci": [0.1, 0.2]}
    info = BundleInfo("a", ("x",), "rgb", metrics=metrics)
    metrics["ci"].append(0.3)
    assert info.metrics == {"ci": [0.1, 0.2]}


WRONG_FIELDS: list[tuple[dict[str, Any], str]] = [
    ({"variant": ""}, "'model.variant' must not be empty"),
    ({"variant": 3}, "'model.variant' must be text, not 3"),
    ({"preprocessing": "a\x1b[31m"}, "'preprocessing' holds a line break or control character"),
    ({"preprocessing": "r" * 5000}, "has 5000 characters; at most 4096"),
    ({"classes": ()}, "'classes' must be a list of at least one name"),
    ({"classes": "cat"}, "'classes' must be a list of at least one name, not 'cat'"),
    ({"classes": ("a", " ")}, r"'classes\[1\]' must not be empty"),
    ({"classes": ("a", 1)}, r"'classes\[1\]' must be text, not 1"),
    ({"classes": ("a", "b", "a")}, "'classes' holds 'a' twice, at 0 and 2"),
    ({"classes": ("a", "\ud800")}, "control character"),
    ({"classes": ("a", "x\ny")}, "line break"),
    ({"options": {"num_classes": 4}}, "must be left out"),
    ({"options": {"name": "x"}}, "must be left out"),
    ({"options": {"a b": 4}}, "the option 'a b' is not a name"),
    ({"options": {"deep": {"a": 1}}}, "a flat list of these"),
    ({"options": {"deep": [[1]]}}, "a flat list of these"),
    ({"options": {"in_channels": True}}, "in_channels' must be an integer from 1, not true"),
    ({"options": {"in_channels": 0}}, "must be an integer from 1, not 0"),
    ({"options": [1]}, "'model.options' must be an object"),
    ({"temperature": 0}, "must be above 0"),
    ({"temperature": -1.0}, "must be above 0"),
    ({"temperature": float("nan")}, "finite"),
    ({"temperature": float("inf")}, "finite"),
    ({"temperature": 10**400}, "finite number of usual size, not a number beyond 64 bits"),
    ({"temperature": True}, "must be a number, not true"),
    ({"temperature": "1"}, "must be a number, not '1'"),
    ({"threshold": 1.5}, "a probability from 0 to 1"),
    ({"threshold": "x"}, "'calibration.threshold' must be a number"),
    ({"metrics": {"top1": float("nan")}}, "'metrics.top1' cannot be stored: NaN is not a finite JSON value"),
    ({"metrics": {"top1": np.float32(1)}}, "'metrics.top1' cannot be stored: a float32"),
    ({"metrics": {1: 2}}, "'metrics' has the key 1, which is not text"),
    ({"metrics": {"n": 2**64}}, "beyond 64 bits"),
    ({"metrics": {"\udfff": 1}}, "which is not text"),
    ({"provenance": None}, "'provenance' must be an object"),
    ({"provenance": {"a": "\ud800"}}, "not valid Unicode"),
    ({"licence": 3}, "'licence' must be text"),
    ({"licence": " "}, "'licence' must not be empty"),
    ({"created": "yesterday"}, "'created' must be a UTC time such as"),
    ({"created": "2026-11-23T09:30:00"}, "UTC time"),
    ({"created": "2026-11-23T09:30:00+01:00"}, "UTC time"),
]


@pytest.mark.parametrize(("change", "sentence"), WRONG_FIELDS)
def test_wrong_fields(info: BundleInfo, change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(BundleError, match=sentence) as caught:
        dataclasses.replace(info, **change)
    assert str(caught.value).isprintable()


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = {"a": value}
    return value


def test_nesting_has_a_limit(info: BundleInfo) -> None:
    dataclasses.replace(info, provenance=nested(strict_json.MAX_DEPTH - 1))
    with pytest.raises(BundleError, match="nested deeper than 12 levels"):
        dataclasses.replace(info, provenance=nested(strict_json.MAX_DEPTH))
    itself: dict[str, Any] = {}
    itself["itself"] = itself
    with pytest.raises(BundleError, match="nested deeper"):
        dataclasses.replace(info, provenance=itself)


def changed(info: BundleInfo, **changes: Any) -> str:
    return json.dumps({**json.loads(info.to_json()), **changes})


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"schema": 3}, r"written by a newer Taxonet \(schema 3; this one reads 1\)"),
        ({"schema": 3, "novelty": 1}, "written by a newer Taxonet"),
        ({"schema": True}, "'schema' must be a positive integer, not true"),
        ({"schema": 0}, "'schema' must be a positive integer, not 0"),
        ({"schema": "1"}, "'schema' must be a positive integer, not '1'"),
        ({"clases": 1}, r"unknown key 'clases'; did you mean 'classes'\?"),
        ({"model": {"variant": "x"}}, "the key 'model.options' is missing"),
        (
            {"model": {"variant": "x", "option": {}, "options": {}}},
            r"unknown key 'model.option'; did you mean 'options'\?",
        ),
        ({"model": "x"}, "'model' must be an object"),
        ({"calibration": {"temperature": 1.0}}, "the key 'calibration.threshold' is missing"),
        ({"classes": {"0": "a"}}, "'classes' must be a list"),
    ],
)
def test_wrong_json(info: BundleInfo, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(BundleError, match=sentence):
        BundleInfo.from_json(changed(info, **changes))


@pytest.mark.parametrize("key", list(json.loads(BundleInfo("a", ("b",), "rgb").to_json())))
def test_every_key_is_needed(info: BundleInfo, key: str) -> None:
    fields = json.loads(info.to_json())
    del fields[key]
    with pytest.raises(BundleError, match=key):
        BundleInfo.from_json(json.dumps(fields))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "not valid JSON"),
        ("[]", "must be a JSON object"),
        ('{"a": 1, "a": 2}', "the key 'a' stands twice"),
        ('{"a": NaN}', "NaN is not JSON"),
        ('{"a": -Infinity}', "-Infinity is not JSON"),
        ('{"schema": ' + "9" * 5000 + "}", "not valid JSON"),
        ('{"a":' * 200_000, "nested too deeply"),
        ("[" * 200_000, "nested too deeply"),
    ],
)
def test_text_that_is_no_strict_json(text: str, sentence: str) -> None:
    with pytest.raises(BundleError, match=sentence):
        BundleInfo.from_json(text)


def test_an_overflowing_number_is_refused(info: BundleInfo) -> None:
    text = info.to_json().replace("1.25", "1e999")
    with pytest.raises(BundleError, match="finite"):
        BundleInfo.from_json(text)


# --- files that are something else -------------------------------------------------------------------------


def zipped(path: Path, member: str) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(member, b"x" * 100)


FOREIGN: list[tuple[bytes, str]] = [
    (b"", "it is empty"),
    (b"a cat", "it is a text file"),
    (b"a much longer text about { cats }", "it is a text file"),
    ("Käfer und Bäume".encode(), "it is a text file"),
    (b'<?xml version="1.0"?><net name="x">', "it is an XML file.*OpenVINO"),
    (b"\x08\x0a\x12\x07pytorch\x1a\x052.13", "it is an ONNX file"),
    (b"<!DOCTYPE html><html>", "it is a web page"),
    (b"version https://git-lfs.github.com/spec/v1\n", "it is a Git LFS pointer"),
    (b"\xff\xd8\xff\xe0\x00\x10JFIF", "it is a photo"),
    (b"\x89HDF\r\n\x1a\n", "it is an HDF5 file"),
    (b"\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09", "it is not a safetensors file"),
    (
        b"\x00\x00\x00\x02\x00\x00\x00\x00{}",
        "it is a file whose header of 33554432 bytes is over the limit of 16777216",
    ),
    (b"\x40\x00\x00\x00\x00\x00\x00\x00{}", "it is truncated: the header should take 64 bytes, and 2 are"),
]


@pytest.mark.parametrize(("content", "sentence"), FOREIGN)
@pytest.mark.parametrize("read", [read_info, read_tensors, tensor_specs])
def test_foreign_files(tmp_path: Path, read: Callable[[Path], Any], content: bytes, sentence: str) -> None:
    path = tmp_path / "file.safetensors"
    path.write_bytes(content)
    with pytest.raises(BundleError, match=f"cannot read '.*file.safetensors': {sentence}"):
        read(path)


@pytest.mark.parametrize("zip_format", [True, False])
def test_a_pickle_checkpoint_gets_its_sentence(tmp_path: Path, state: State, zip_format: bool) -> None:
    path = tmp_path / "model.pth"
    torch.save(state, path, _use_new_zipfile_serialization=zip_format)
    with pytest.raises(BundleError, match=r"it is a PyTorch pickle checkpoint, not a bundle; convert it.*--weig"):
        read_info(path)
    zipped(path, "word/document.xml")
    with pytest.raises(BundleError, match="it is a zip archive"):
        read_info(path)


def test_no_file_a_folder_and_a_pipe(bundle: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(BundleError, match=r"'.*model\.safetensors'\?"):
        read_info(tmp_path)
    with pytest.raises(BundleError, match="there is no such file"):
        read_info(tmp_path / "none")
    with pytest.raises(BundleError, match="not a regular file"):
        read_info(tmp_path / "pipe")
    for odd in ("nul\0byte", "n" * 5000):
        with pytest.raises(BundleError):
            read_info(odd)


def test_safetensors_without_our_key(tmp_path: Path, state: State, info: BundleInfo) -> None:
    path = tmp_path / "plain.safetensors"
    save_file(state, path)
    with pytest.raises(BundleError, match="without the key 'taxonet', so only weights, not a bundle; convert"):
        read_info(path)
    assert same(read_tensors(path), state)
    save_file(state, path, {"taxonet": info.to_json(), "format": "pt"})
    with pytest.raises(BundleError, match="unknown metadata 'format'"):
        read_info(path)


# --- forged headers ----------------------------------------------------------------------------------------


def entry(shape: Any = (2,), offsets: Any = (0, 8), dtype: Any = "F32", **more: Any) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets, **more}


FORGED: list[tuple[Any, str]] = [
    (b"{,}", "the header is not valid JSON"),
    (b'{"\xff": 1}', "the header is not UTF-8"),
    (b'{"a":' * 100_000, "the header is nested too deeply"),
    (b'{"a": 1, "a": 1}', "the key 'a' stands twice"),
    ({"__metadata__": []}, "'__metadata__' must be an object"),
    ({"__metadata__": {"taxonet": 1}}, "the metadata 'taxonet' must be text"),
    ({"__metadata__": {"taxonet": "\ud800"}}, "the metadata 'taxonet' must be text"),
    ({"a": 1}, "must have exactly 'dtype', 'shape' and 'data_offsets'"),
    ({"a": entry(more=1)}, "must have exactly"),
    ({"": entry()}, "a name that is empty"),
    ({"\ud800": entry()}, "not Unicode text"),
    ({"a": entry(dtype="F4")}, "the tensor 'a' has the dtype 'F4'; known are F64, F32"),
    ({"a": entry(dtype=["F32"])}, "has the dtype a list of 1"),
    ({"a": entry(shape="2")}, "the shape of the tensor 'a' must be a list"),
    ({"a": entry(shape=[-2])}, "the shape of the tensor 'a' holds -2"),
    ({"a": entry(shape=[True, 2])}, "holds true"),
    ({"a": entry(shape=[2.0])}, "holds 2.0"),
    ({"a": entry(shape=[2**40])}, "holds 1099511627776"),
    ({"a": entry(shape=[0, 10**30])}, "holds a number beyond 64 bits"),
    ({"a": entry(shape=[1] * 8 + [2])}, "has 9 dimensions"),
    ({"a": entry(shape=[2**31 - 1] * 8)}, "its place does not have them"),
    ({"a": entry(offsets=[0])}, "must be two numbers"),
    ({"a": entry(offsets=[0, -8])}, "holds -8"),
    ({"a": entry(offsets=[8, 0])}, "its place does not have them"),
    ({"a": entry(offsets=[False, 8])}, "holds false"),
    ({"a": entry(shape=[3])}, "needs 12 bytes by shape and dtype"),
    ({"a": entry(), "b": entry()}, "the tensors 'a' and 'b' overlap"),
    ({"a": entry(), "b": entry(offsets=[4, 12])}, "overlap"),
    ({"a": entry(), "b": entry(offsets=[12, 20])}, "unused bytes before the tensor 'b'"),
    ({"a": entry(), "b": entry(offsets=[8, 16])}, "it is truncated: the tensors should take 16 bytes, and 8"),
    ({"a": entry(shape=[1], offsets=[0, 4])}, "it has 4 bytes after the last tensor"),
]


@pytest.mark.parametrize(("header", "sentence"), FORGED)
def test_forged_headers(forge: Forge, header: Any, sentence: str) -> None:
    path = forge(header, b"\0" * 8)
    for read in (read_info, read_tensors, tensor_specs):
        with pytest.raises(BundleError, match=sentence):
            read(path)


def test_odd_but_valid_files_are_read(forge: Forge) -> None:
    path = forge({"b": entry(offsets=[8, 16]), "a": entry(), "e": entry([0, 7], [8, 8])}, bytes(16))
    tensors = read_tensors(path)
    assert list(tensors) == ["b", "a", "e"]
    assert tensors["e"].shape == (0, 7)
    assert same(tensors, load_file(path))
    bools = read_tensors(forge({"a": entry([3], [0, 3], "BOOL")}, b"\x00\x01\x77"))["a"]
    assert bools.view(torch.uint8).tolist() == [0, 1, 1]
    length_640 = json.dumps({"a": entry()}).encode().ljust(640)  # begins like a pickle of protocol 2
    assert forge(length_640, bytes(8)).read_bytes()[:2] == b"\x80\x02"
    assert list(read_tensors(forge(length_640, bytes(8)))) == ["a"]


# --- does it fit its network? ------------------------------------------------------------------------------

EXPECTED = {"a.weight": ("float32", (2, 3)), "a.bias": ("float32", (2,)), "b.weight": ("float32", (4,))}


@pytest.mark.parametrize(
    ("specs", "sentence"),
    [
        (
            {"b.weigth": ("float32", (4,))},
            r"the tensor 'a.weight' is missing \(and 2 more\)",
        ),
        (
            {"a.weight": ("float32", (2, 3)), "a.bias": ("float32", (2,)), "b.weigth": ("float32", (4,))},
            r"the tensor 'b.weight' is missing; did you mean 'b.weigth'\?",
        ),
        (
            EXPECTED | {"c": ("int8", ()), "d": ("int8", ())},
            r"'c' has no place in the network \(and 1 more\)",
        ),
        (
            EXPECTED | {"a.bias": ("float32", (5,))},
            r"'a.bias' has the shape \(5,\), and the network has \(2,\)$",
        ),
        (
            EXPECTED | {"a.bias": ("float64", (2,))},
            "'a.bias' has the dtype float64, and the network has float32$",
        ),
    ],
)
def test_check_state(specs: dict[str, module.Spec], sentence: str) -> None:
    with pytest.raises(BundleError, match=sentence):
        check_state(specs, EXPECTED)


def test_check_state_accepts_what_fits(bundle: Path, state: State) -> None:
    check_state(tensor_specs(bundle), specs_of(state))
