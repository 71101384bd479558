"""Predictions: in order, one an input, each its own answer or its own error."""

import dataclasses
import itertools
import random
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

import taxonet
from taxonet.errors import BundleError, DataError, UsageError
from taxonet.images import Limits
from taxonet.inference import Classifier
from taxonet.inference.engines import TorchEngine
from taxonet.weights.networks import open_model


@pytest.fixture(scope="module")
def photos(tmp_path_factory, paint):
    """Nine pictures of sizes and formats of their own."""
    folder = tmp_path_factory.mktemp("photos")
    cases = itertools.product(("red", "green", "blue"), ("png", "jpg", "webp"))
    return [
        paint(folder / f"{colour}.{suffix}", colour, seed=i, size=(30 + 7 * i, 60 - 3 * i))
        for i, (colour, suffix) in enumerate(cases)
    ]


def with_temperature(bundle, temperature):
    info, network = open_model(bundle)
    return Classifier(dataclasses.replace(info, temperature=temperature), TorchEngine(network, info.preprocessing))


def test_the_answer_of_a_picture(colour_classifier, photos):
    (answer,) = colour_classifier.predict(photos[0])
    assert answer.path == str(photos[0])
    assert answer.error is None
    assert answer.label == "red"
    assert {(p.label, p.index) for p in answer.predictions} == {("red", 0), ("green", 1), ("blue", 2)}
    probabilities = [p.probability for p in answer.predictions]
    assert probabilities == sorted(probabilities, reverse=True)
    assert sum(probabilities) == pytest.approx(1, abs=1e-6)
    assert answer.as_dict() == {
        "path": str(photos[0]),
        "predictions": [{"label": p.label, "index": p.index, "probability": p.probability} for p in answer.predictions],
        "error": None,
        "abstained": False,
    }


def test_labels_are_right_in_the_order_given(colour_classifier, photos):
    mixed = random.Random(0).sample(photos, len(photos))
    answers = colour_classifier.predict(mixed, top=1, batch_size=4)
    assert [answer.path for answer in answers] == [str(path) for path in mixed]
    assert [answer.label for answer in answers] == [path.stem for path in mixed]


def test_a_model_of_nan_answers_nothing(small_bundle, photos):
    info, network = open_model(small_bundle)
    torch.nn.init.constant_(network.classifier.weight, float("nan"))
    with pytest.raises(BundleError, match="weights are broken"):
        Classifier(info, TorchEngine(network, info.preprocessing)).predict(photos[0])


@pytest.fixture
def with_broken(photos, broken_jpeg, tmp_path):
    """Good pictures, and in their midst a broken, an empty and a missing file."""
    (tmp_path / "empty.jpg").touch()
    return [*photos[:4], broken_jpeg, photos[4], tmp_path / "empty.jpg", tmp_path / "gone.jpg", *photos[5:]]


@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_a_broken_file_answers_with_its_own_error(colour_classifier, with_broken, photos, batch_size):
    answers = colour_classifier.predict(with_broken, batch_size=batch_size)
    assert [answer.path for answer in answers] == list(map(str, with_broken))
    errors = {place: answer.error for place, answer in enumerate(answers) if answer.error}
    assert list(errors) == [4, 6, 7]
    assert errors[4].startswith("the JPEG picture is truncated or damaged")
    assert (errors[6], errors[7]) == ("the file is empty", "the file does not exist")
    assert all(answers[place].predictions == () and answers[place].label is None for place in errors)
    for answer in answers:
        if answer.error is None:
            assert_same(answer, colour_classifier.predict(answer.path)[0])


def assert_same(one, other):
    assert (one.path, one.error) == (other.path, other.error)
    assert [(p.label, p.index) for p in one.predictions] == [(p.label, p.index) for p in other.predictions]
    for left, right in zip(one.predictions, other.predictions, strict=True):
        assert left.probability == pytest.approx(right.probability, abs=1e-5)


def test_probabilities_of_an_unreadable_picture_are_nan(colour_classifier, with_broken):
    table = colour_classifier.predict_proba(with_broken)
    assert table.shape == (len(with_broken), 3)
    assert table.dtype == np.float32
    assert np.flatnonzero(np.isnan(table).all(axis=1)).tolist() == [4, 6, 7]
    np.testing.assert_allclose(np.delete(table, [4, 6, 7], axis=0).sum(axis=1), 1, atol=1e-6)


def test_every_form_of_picture_gives_the_same(colour_classifier, pixels, tmp_path):
    array = pixels("green", seed=5)
    path = tmp_path / "green.png"
    Image.fromarray(array).save(path)
    forms = [str(path), path, path.read_bytes(), bytearray(path.read_bytes()), Image.fromarray(array), array]
    expected = colour_classifier.predict_proba(path)
    assert expected.shape == (1, 3)
    for form in forms:
        assert np.array_equal(colour_classifier.predict_proba(form), expected)
    together = colour_classifier.predict(forms)
    assert [answer.path for answer in together] == [str(path)] * 2 + [None] * 4
    assert {answer.label for answer in together} == {"green"}


def test_many_pictures_may_be_a_list_a_generator_or_one_array(colour_classifier, pixels, colours):
    stack = np.stack([pixels(colour) for colour in colours])
    for many in (list(stack), tuple(stack), iter(stack), (array for array in stack), stack):
        assert [answer.label for answer in colour_classifier.predict(many)] == list(colours)
    assert colour_classifier.predict_proba(stack).argmax(axis=1).tolist() == [0, 1, 2]


def test_an_endless_stream_is_answered_as_it_comes(colour_classifier, pixels, colours):
    endless = (pixels(colour) for colour in itertools.cycle(colours))
    answers = colour_classifier.predict_each(endless, top=1, batch_size=2)
    assert [answer.label for answer in itertools.islice(answers, 7)] == [*colours, *colours, "red"]


def test_nothing_gives_nothing(colour_classifier):
    assert colour_classifier.predict([]) == []
    assert colour_classifier.predict_proba([]).shape == (0, 3)


@pytest.mark.parametrize(("top", "named"), [(1, 1), (2, 2), (3, 3), (1000, 3)])
def test_top_is_at_most_the_number_of_classes(colour_classifier, photos, top, named):
    whole = colour_classifier.predict(photos[0])[0].predictions
    assert colour_classifier.predict(photos[0], top=top)[0].predictions == whole[:named]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"top": 0}, "top is 0, it must be at least 1"),
        ({"top": -3}, "top is -3, it must be at least 1"),
        ({"batch_size": 0}, "batch_size is 0, it must be at least 1"),
        ({"top": "3"}, "top is '3', it must be a whole number"),
        ({"top": 2.5}, "top is 2.5, it must be a whole number"),
        ({"top": True}, "top is True, it must be a whole number"),
        ({"batch_size": "a"}, "batch_size is 'a', it must be a whole number"),
        ({"threshold": "0.3"}, "threshold is '0.3', it must be a probability from 0 to 1"),
    ],
)
def test_wrong_numbers(colour_classifier, photos, options, sentence):
    with pytest.raises(UsageError, match=sentence):
        colour_classifier.predict(photos, **options)


@pytest.mark.parametrize("value", [None, 3, {"a": "photo.jpg"}, torch.zeros(3, 8, 8)])
def test_what_is_no_picture_at_all_is_refused(colour_classifier, value):
    with pytest.raises(UsageError, match="is no picture: give a path"):
        colour_classifier.predict(value)


def test_an_open_file_is_one_picture(colour_classifier, paint, tmp_path):
    with paint(tmp_path / "0.png", "red").open("rb") as file:
        (answer,) = colour_classifier.predict(file)
    assert answer.label == "red"


def test_values_of_a_wrong_kind_are_one_sentence(small_bundle, tmp_path):
    for work, sentence in (
        (lambda: taxonet.load(None), "the model is None, it must be a path or a name"),
        (lambda: taxonet.load(small_bundle, engine=None), "there is no engine 'None'"),
        (lambda: taxonet.export(small_bundle, to=None, out=tmp_path / "x"), "there is no format 'None'"),
        (
            lambda: taxonet.export(small_bundle, to="openvino", out=tmp_path / "x", int8=True, max_drop="1"),
            "max_drop is",
        ),
        (
            lambda: taxonet.export(small_bundle, to="openvino", out=tmp_path / "x", int8=True, calibration=2.5),
            "calibration is 2.5, it must be a whole number",
        ),
        (lambda: taxonet.predict_files(["a.jpg"], out=None, model=small_bundle), "out is None, it must be a path"),
    ):
        with pytest.raises(UsageError, match=sentence):
            work()


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_the_batch_size_changes_nothing(colour_classifier, photos, batch_size):
    whole = colour_classifier.predict_proba(photos)
    parts = colour_classifier.predict_proba(photos, batch_size=batch_size)
    np.testing.assert_allclose(parts, whole, atol=1e-5, rtol=0)
    assert parts.argmax(axis=1).tolist() == whole.argmax(axis=1).tolist()


def test_four_threads_get_what_one_gets(colour_classifier, photos):
    orders = [random.Random(seed).sample(photos, len(photos)) for seed in range(12)]
    expected = [colour_classifier.predict(order, batch_size=4) for order in orders]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda order: colour_classifier.predict(order, batch_size=4), orders))
    assert found == expected


def test_predicting_leaves_a_network_in_its_mode(small_bundle, photos):
    info, network = open_model(small_bundle)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    classifier = Classifier(info, TorchEngine(network.train(), info.preprocessing))
    assert classifier.predict_proba(photos[0]).argmax() == 0  # batch statistics of one picture would tell nothing
    assert network.training
    assert all(value.equal(before[key]) for key, value in network.state_dict().items())


def test_temperature_makes_answers_less_sure_and_changes_no_order(small_bundle, photos):
    plain = with_temperature(small_bundle, 1.0).predict_proba(photos)
    warm = with_temperature(small_bundle, 3.0).predict_proba(photos)
    assert (warm.max(axis=1) < plain.max(axis=1)).all()
    assert (np.argsort(-warm, axis=1) == np.argsort(-plain, axis=1)).all()
    logits = np.log(plain.astype(np.float64)) / 3
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(warm, expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [("L", "jpg"), ("L", "png"), ("LA", "png"), ("RGBA", "png"), ("P", "gif"), ("1", "png"), ("CMYK", "jpg")],
)
def test_odd_colour_modes_are_pictures_too(colour_classifier, pixels, tmp_path, mode, suffix):
    path = tmp_path / f"picture.{suffix}"
    Image.fromarray(pixels("blue")).convert(mode).save(path)
    (answer,) = colour_classifier.predict(path)
    assert answer.error is None
    if mode in ("RGBA", "P", "CMYK"):  # these keep the colour
        assert answer.label == "blue"


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (np.zeros((8, 8, 3), np.float32), "the array holds float32, pixels must be uint8"),
        (np.zeros((8, 8, 2), np.uint8), "the array has shape"),
        (b"", "the file is empty"),
        (b"<html></html>", "it is a text file; the accepted formats are"),
        (7, "not an object of type int"),
        (None, "not an object of type NoneType"),
    ],
)
def test_what_is_no_picture_is_an_error_of_its_own(colour_classifier, pixels, wrong, reason):
    before, answer, after = colour_classifier.predict([pixels("red"), wrong, pixels("blue")])
    assert reason in answer.error
    assert (before.label, answer.label, after.label) == ("red", None, "blue")


def test_a_folder_is_no_picture(colour_classifier, tmp_path):
    assert colour_classifier.predict(tmp_path)[0].error == "it is a folder, not a file"


def test_limits_hold(small_bundle, photos, huge_png):
    info, network = open_model(small_bundle)
    assert "900,000,000 pixels" in Classifier(info, TorchEngine(network, info.preprocessing)).predict(huge_png)[0].error
    strict = Classifier(info, TorchEngine(network, info.preprocessing), limits=Limits(max_bytes=10**6, max_pixels=100))
    assert "the limit is 100" in strict.predict(photos[0])[0].error


def test_predict_takes_files_folders_and_patterns(small_bundle, fill, tmp_path):
    fill(tmp_path, red=2, blue=1)
    seen = []
    answers = taxonet.predict(
        [tmp_path / "blue", tmp_path / "red" / "*.png"],
        model=small_bundle,
        top=1,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert [answer.label for answer in answers] == ["blue", "red", "red"]
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert taxonet.predict(tmp_path / "red" / "0.png", model=small_bundle)[0].label == "red"
    (tmp_path / "hollow").mkdir()
    with pytest.raises(DataError, match="hollow holds no pictures"):
        taxonet.predict(tmp_path / "hollow", model=small_bundle)


def test_an_unknown_engine_is_refused_before_anything_is_opened(tmp_path):
    with pytest.raises(
        UsageError,
        match=r"there is no engine 'touch', it must be one of: auto, torch, openvino, onnxruntime; did you mean",
    ):
        taxonet.load(tmp_path / "gone.safetensors", engine="touch")


def test_load_opens_the_bundle(colour_classifier, small_bundle, colours):
    assert colour_classifier.classes == colours
    assert colour_classifier.engine.name == "torch"
    assert isinstance(taxonet.load(str(small_bundle), engine="torch"), taxonet.Classifier)


@pytest.mark.parametrize("batch_size", [1, 2, 5, 32])
def test_items_of_several_pictures_keep_their_rows_for_any_batch_size(colour_classifier, with_broken, batch_size):
    """Each item is shown plain and mirrored: its two rows are its own, whatever shares the batch."""

    def both(path):
        pixels = colour_classifier.preprocessing.pixels(path)
        return np.stack([pixels, pixels[:, ::-1]])

    found = list(colour_classifier.logits_each(with_broken, both, batch_size, rows=2))
    assert [path for path, _ in found] == with_broken
    assert [place for place, (_, logits) in enumerate(found) if isinstance(logits, str)] == [4, 6, 7]
    for path, logits in found:
        if not isinstance(logits, str):
            np.testing.assert_allclose(logits, colour_classifier.logits(both(path)), atol=1e-4)


def test_the_threshold_of_the_bundle_is_obeyed(small_bundle, photos):
    info, network = open_model(small_bundle)
    plain = Classifier(info, TorchEngine(network, info.preprocessing)).predict(photos)
    cut = float(np.median([answer.predictions[0].probability for answer in plain]))
    answers = Classifier(dataclasses.replace(info, threshold=cut), TorchEngine(network, info.preprocessing)).predict(
        photos
    )
    assert [a.abstained for a in answers] == [a.predictions[0].probability < cut for a in plain]
    assert {a.abstained for a in answers} == {True, False}  # the median itself is answered
    assert [a.predictions for a in answers] == [a.predictions for a in plain]
    assert [a.label for a in answers] == [None if a.abstained else a.predictions[0].label for a in answers]
    with pytest.raises(UsageError, match=r"threshold is -0\.1, it must be a probability from 0 to 1"):
        Classifier(info, TorchEngine(network, info.preprocessing)).predict(photos, threshold=-0.1)
