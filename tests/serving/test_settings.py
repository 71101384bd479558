"""Settings and their limits, tokens, how cores are shared out, names of models, drift."""

import numpy as np
import pytest

import taxonet
from taxonet.errors import UsageError
from taxonet.images.statistics import FEATURES, features, statistics
from taxonet.serving import Settings, Tokens
from taxonet.serving.deployment import named_models
from taxonet.serving.drift import LEAST, WINDOW, Drift


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"batch": 0}, "batch is 0, it must be at least 1"),
        ({"timeout": 0}, "timeout is 0, it must be a number of seconds above 0"),
        ({"max_memory": 1000}, "memory must hold one request"),
        ({"cors": ("*",), "tokens": Tokens(["x" * 20])}, "name the origins that may send a token"),
    ],
)
def test_settings_that_cannot_be(values, sentence):
    with pytest.raises(UsageError, match=sentence):
        Settings(**values)


@pytest.mark.parametrize(
    ("cores", "asked", "threads"),
    [(1, 0, [1]), (2, 0, [1, 1]), (6, 0, [3, 3]), (16, 0, [4, 4, 4, 4]), (5, 2, [3, 2]), (2, 4, [1, 1, 1, 1])],
)
def test_workers_share_out_the_cores(monkeypatch, cores, asked, threads):
    monkeypatch.setattr("taxonet.serving.settings.cpu_count", lambda: cores)
    assert Settings(workers=asked).shares() == threads


def test_a_setting_that_there_is_not_is_refused_with_the_nearest():
    with pytest.raises(UsageError, match="there is no setting 'max_file'; did you mean 'max_files'"):
        taxonet.serve("gone.safetensors", max_file=3)


def test_tokens_are_compared_whole():
    tokens = Tokens(["first-token-of-all", "second-token-of-all"])
    assert tokens.know(b"Bearer first-token-of-all")
    assert tokens.know(b"bearer  second-token-of-all")
    for wrong in (
        b"",
        b"Bearer",
        b"Bearer first-token-of-al",
        b"Bearer first-token-of-all2",
        b"Basic first-token-of-all",
    ):
        assert not tokens.know(wrong)
    for short in (["short"], [], ["with a space in it all"]):
        with pytest.raises(UsageError):
            Tokens(short)


def test_models_are_called_by_stem_catalogue_name_or_as_one_says(small_bundle, tmp_path):
    (tmp_path / "x.xml").touch()
    words = [str(small_bundle), str(tmp_path / "x.xml"), "densenet121.tv_in1k", f"mine={small_bundle}"]
    assert named_models(words) == {
        "colours": str(small_bundle),
        "x": str(tmp_path / "x.xml"),
        "densenet121.tv_in1k": "densenet121.tv_in1k",
        "mine": str(small_bundle),
    }


def test_drift_is_told_in_spreads_of_the_training_pictures(pixels):
    trained = statistics(features(pixels("red", seed)) for seed in range(100))
    assert trained["n"] == 100
    same, other, unknown = Drift(trained), Drift(trained), Drift({})
    for seed in range(LEAST):
        assert same.distances() == {}
        for drift, picture in ((same, pixels("red", 200 + seed)), (other, pixels("red", 300 + seed) // 2)):
            drift.add(features(picture))
        unknown.add([0.0] * 4)
    assert set(same.distances()) == set(FEATURES)
    assert max(same.distances().values()) < 1.5
    assert other.distances()["brightness"] > 10
    assert unknown.distances() == {}
    for seed in range(WINDOW):  # the latest count
        other.add(features(pixels("red", 1000 + seed)))
    assert other.distances()["brightness"] < 1


def test_features_are_what_they_say():
    grey = np.full((20, 20, 3), 128, np.uint8)
    assert features(grey) == [pytest.approx(0.50196, abs=1e-4), 0.0, 0.0, 0.0]
    stripes = np.zeros((32, 32, 3), np.uint8)
    stripes[:, ::8] = 255
    brightness, contrast, colourfulness, sharpness = features(stripes)
    assert (brightness, contrast, colourfulness) == (0.5, 0.5, 0.0)
    assert sharpness == pytest.approx(0.5, abs=0.01)  # every neighbour differs along one of the two axes
    assert features(np.stack([grey[..., 0], grey[..., 0], grey[..., 0] * 0], axis=-1))[2] > 0.2
    assert features(grey[..., :1])[2] == 0.0  # one channel has no colour
