"""Engines: each answers as torch does, from any thread, and is kept for the next start; none sends anything."""

import json
import logging
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import taxonet
from taxonet.errors import UsageError
from taxonet.inference.agreement import compare_logits
from taxonet.inference.engine_cache import folder
from taxonet.inference.engines import run_on_all
from taxonet.inference.engines.libraries import ONNX
from taxonet.machine import thread_count


@pytest.fixture(scope="module")
def prepared_pixels(colour_classifier, pixels):
    sources = [pixels(colour, seed=i) for i in range(7) for colour in ("red", "green", "blue")]
    return np.stack([colour_classifier.preprocessing.pixels(source) for source in sources])


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory):
    """A cache of this module's own, on a machine of two cores."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TAXONET_CACHE", str(tmp_path_factory.mktemp("engines")))
        patch.setenv("OMP_NUM_THREADS", "2")
        yield


@pytest.fixture(scope="module", params=["openvino", "onnxruntime"])
def other(request, cache, small_bundle):
    return taxonet.load(small_bundle, engine=request.param)


@pytest.mark.parametrize("count", [1, 2, 21])
def test_an_engine_gives_the_logits_of_torch_for_any_number_of_pictures(
    other, colour_classifier, prepared_pixels, count
):
    expected = colour_classifier.engine.run(prepared_pixels[:count])
    found = other.engine.run(prepared_pixels[:count])
    assert (found.shape, found.dtype) == ((count, 3), np.float32)
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max(), rtol=0)
    np.testing.assert_array_equal(run_on_all(other.engine, prepared_pixels[:count]).argmax(1), expected.argmax(1))


def test_many_threads_at_once_get_their_own_answers(other, prepared_pixels):
    expected = other.engine.run(prepared_pixels)
    orders = [np.random.default_rng(seed).permutation(len(prepared_pixels))[: 1 + seed % 5] for seed in range(40)]
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda order: other.engine.run(prepared_pixels[order]), orders))
    for order, logits in zip(orders, found, strict=True):
        np.testing.assert_allclose(logits, expected[order], atol=1e-4)


def test_predictions_are_those_of_torch(other, colour_classifier, fill, tmp_path):
    photos = sorted(fill(tmp_path, red=3, green=2, blue=2).rglob("*.png"))
    assert [a.label for a in other.predict(photos)] == [a.label for a in colour_classifier.predict(photos)]
    np.testing.assert_allclose(other.predict_proba(photos), colour_classifier.predict_proba(photos), atol=1e-5)


def test_the_streams_are_the_cores(other, colour_classifier):
    assert (other.engine.streams, colour_classifier.engine.streams) == (min(2, thread_count()), 1)


def test_the_second_start_needs_no_torch(cache, small_bundle):
    taxonet.load(small_bundle, engine="openvino")
    program = (
        "import sys, taxonet; c = taxonet.load(sys.argv[1], engine='openvino'); "
        "print(c.classes, [m for m in ('torch', 'sklearn', 'matplotlib') if m in sys.modules])"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program, str(small_bundle)], capture_output=True, text=True, check=False
    )
    assert (ran.stdout, ran.stderr) == ("('red', 'green', 'blue') []\n", "")


def test_a_damaged_graph_in_the_cache_is_made_again(cache, small_bundle, prepared_pixels, colour_classifier):
    taxonet.load(small_bundle, engine="openvino")
    (weights,) = folder().glob("*.bin")
    weights.write_bytes(weights.read_bytes()[:-100])
    found = taxonet.load(small_bundle, engine="openvino").engine.run(prepared_pixels)
    np.testing.assert_allclose(found, colour_classifier.engine.run(prepared_pixels), atol=1e-4)


def test_calibration_is_the_bundle_s_and_needs_no_new_graph(cache, small_bundle, tmp_path):
    from taxonet.weights.rewriting import write_calibration

    taxonet.load(small_bundle, engine="openvino")
    before = sorted(folder().glob("*.xml"))
    write_calibration(small_bundle, tmp_path / "warm.safetensors", 3.0, 0.5)
    warm = taxonet.load(tmp_path / "warm.safetensors", engine="openvino")
    assert (warm.info.temperature, warm.info.threshold) == (3.0, 0.5)
    assert sorted(folder().glob("*.xml")) == before


def test_a_cache_that_cannot_be_written_costs_only_time(small_bundle, tmp_path, monkeypatch, prepared_pixels, caplog):
    (tmp_path / "file").touch()
    monkeypatch.setenv("TAXONET_CACHE", str(tmp_path / "file"))
    assert taxonet.load(small_bundle, engine="openvino").engine.run(prepared_pixels).shape == (21, 3)
    monkeypatch.delenv("TAXONET_ENGINE")
    with caplog.at_level(logging.INFO):
        assert taxonet.load(small_bundle).engine.name in ("openvino", "torch")
    assert "onnxruntime is not used: the cache" in caplog.text
    assert "the choice is not kept" in caplog.text


def test_auto_measures_once_and_says_why(cache, small_bundle, monkeypatch, caplog):
    monkeypatch.delenv("TAXONET_ENGINE")
    with caplog.at_level(logging.INFO):
        first = taxonet.load(small_bundle)
        second = taxonet.load(small_bundle)
    said = [record.getMessage() for record in caplog.records]
    assert said[0] == "densenet_bc_22_12: measuring once which engine is the fastest here"
    assert said[1].startswith(f"engine: {first.engine.name} (")
    assert said[2:] == [said[1].removesuffix(")") + "; measured before)"]
    assert second.engine.name == first.engine.name
    (note,) = folder().glob("*.json")
    kept = json.loads(note.read_text())
    assert set(kept["images_per_second"]) == {"torch", "openvino", "onnxruntime"}
    assert max(kept["images_per_second"], key=kept["images_per_second"].get) == first.engine.name
    assert all(found["holds"] for found in kept["agreement"].values())


def test_the_environment_says_what_auto_means(cache, small_bundle, monkeypatch):
    monkeypatch.setenv("TAXONET_ENGINE", "openvino")
    assert taxonet.load(small_bundle).engine.name == "openvino"
    assert taxonet.load(small_bundle, engine="torch").engine.name == "torch"
    monkeypatch.setenv("TAXONET_ENGINE", "openvin")
    with pytest.raises(UsageError, match=r"there is no engine 'openvin'.*did you mean 'openvino'"):
        taxonet.load(small_bundle)


def test_onnxruntime_that_is_not_installed(tmp_path, small_bundle, monkeypatch):
    monkeypatch.setenv("TAXONET_CACHE", str(tmp_path))
    for name in ONNX:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UsageError, match=r"pip install 'taxonet\[onnx\]'"):
        taxonet.load(small_bundle, engine="onnxruntime")


def test_opening_and_converting_open_no_socket(small_bundle, tmp_path):
    """Importing openvino, and converting with it, sends an event by itself where nobody prevents it."""
    program = (
        "import sys, socket\n"
        "def refuse(*args): raise SystemExit('a socket was opened')\n"
        "sys.addaudithook(lambda event, args: refuse() if event.startswith('socket.') else None)\n"
        "{first}import taxonet; taxonet.load(sys.argv[1], engine='openvino'); "
        "tm = sys.modules.get('openvino_telemetry')\n"
        "from openvino.tools.ovc.telemetry_utils import init_ovc_telemetry\n"
        "print(init_ovc_telemetry().__class__.__module__)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program.format(first=""), str(small_bundle)],
        env={**__import__("os").environ, "TAXONET_CACHE": str(tmp_path), "HOME": str(tmp_path), "CI": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.stdout, ran.stderr) == ("openvino.tools.ovc.telemetry_stub\n", "")
    assert not (tmp_path / "intel").exists()  # where openvino-telemetry keeps who its user is


def test_agreement_needs_equal_labels_but_for_ties():
    reference = np.array([[10.0, 0.0, 0.0], [0.0, 5.0, 4.99995]], np.float32)
    same = compare_logits(reference, reference)
    assert same.holds
    assert (same.pictures, same.difference, same.largest_logit) == (2, 0.0, 10.0)
    turned = compare_logits(reference, reference + np.array([[0, 0, 0], [0, 0, 1e-4]], np.float32))
    assert turned.holds
    assert (turned.other_labels, turned.near_ties) == (1, 1)
    wrong = compare_logits(reference, reference[:, ::-1])
    assert not wrong.holds
    assert str(wrong).endswith("1 of 2 labels differ")
    assert not compare_logits(reference, np.full((2, 3), np.nan, np.float32)).holds
    assert not compare_logits(reference, reference + np.float32(0.002)).holds  # the bound is 0.001 here
