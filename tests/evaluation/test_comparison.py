"""`compare`: the same photos, classes by name, and what is said where models cannot be compared."""

import html
import json
import operator
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from taxonet.errors import DataError, UsageError
from taxonet.evaluation import comparison, evaluate
from taxonet.evaluation.comparison import compare, pareto_front
from taxonet.evaluation.comparison_page import write_comparison
from taxonet.evaluation.speed import Timing
from taxonet.inference import Classifier, load
from taxonet.networks.complexity import complexity
from taxonet.weights.networks import open_model, save_network


def rebuilt(path, source, classes=None, **changes):
    """The bundle `source` again with its classes in another order (or other ones), each with its own weights."""
    info, network = open_model(source)
    if classes is not None:
        old = list(info.classes)
        rows = [old.index(label) if label in old else 0 for label in classes]
        head = network.classifier
        weight, bias = head.weight.detach()[rows].clone(), head.bias.detach()[rows].clone()
        network.reset_classifier(len(classes))
        with torch.no_grad():
            network.classifier.weight.copy_(weight)
            network.classifier.bias.copy_(bias)
        info = replace(info, classes=tuple(classes))
    save_network(path, replace(info, **changes), network)
    return path


@pytest.fixture(scope="module")
def data(fill, tmp_path_factory):
    return fill(tmp_path_factory.mktemp("data"), red=6, green=5, blue=5)


@pytest.fixture(scope="module")
def worse(small_bundle, tmp_path_factory):
    """The same network with a classifier that answers green whatever it sees."""
    info, network = open_model(small_bundle)
    with torch.no_grad():
        network.classifier.bias[1] += 100.0
    path = tmp_path_factory.mktemp("worse") / "worse.safetensors"
    save_network(path, info, network)
    return path


@pytest.fixture(scope="module")
def compared(small_bundle, worse, data):
    return compare([worse, small_bundle], data, runs=5)


def test_figures_are_those_of_evaluate(compared, small_bundle, worse, data):
    for model, path in zip(compared.models, (worse, small_bundle), strict=True):
        assert model.metrics == evaluate(path, data).metrics
        assert model.bytes == path.stat().st_size
    assert [model.name for model in compared.models] == ["worse", "colours"]
    cost = complexity("densenet_bc_22_12", 32, num_classes=3)
    assert (compared.models[0].params, compared.models[0].macs) == (cost.params, cost.macs)


def test_the_better_one_is_named_and_the_photos_that_differ_are_listed(compared, small_bundle, worse, data):
    (pair,) = compared.pairs
    assert (pair.better, pair.other) == ("colours", "worse")
    assert pair.difference == pytest.approx(compared.models[1].metrics.top1 - compared.models[0].metrics.top1)
    assert pair.significant
    assert compared.sentences == [pair.sentence]
    first, second = load(worse), load(small_bundle)
    differing = {str(d.sample.path): tuple(label for label, _ in d.answers) for d in compared.disagreements}
    for path in sorted(data.rglob("*.png")):
        labels = first.predict(path)[0].label, second.predict(path)[0].label
        assert differing.get(str(path), labels) == labels
        assert (str(path) in differing) == (labels[0] != labels[1])
    assert compared.disagreements


def test_times_are_of_every_model_with_their_spread(compared):
    for model in compared.models:
        for timing in (model.speed.single, model.speed.single_network, model.speed.batch, model.speed.batch_network):
            assert 0 < timing.low <= timing.median <= timing.high
            assert timing.runs >= 5
    assert compared.machine.threads == torch.get_num_threads()
    assert compared.machine.cores >= 1
    assert compared.models[1].best_for_speed in (True, False)
    assert any(model.best_for_speed for model in compared.models)


def test_classes_are_matched_by_name(small_bundle, data, tmp_path):
    turned = rebuilt(tmp_path / "turned.safetensors", small_bundle, ["blue", "red", "green"])
    result = compare([small_bundle, turned], data, runs=0)
    assert not result.disagreements
    assert result.sentences == ["colours and turned are right and wrong on the same of 16 photos"]
    assert result.models[0].metrics.top1 == result.models[1].metrics.top1
    assert result.pairs[0].p == 1.0
    assert result.models[0].speed is None


def test_different_classes_are_a_sentence_and_can_be_restricted(small_bundle, data, tmp_path):
    other = rebuilt(tmp_path / "other.safetensors", small_bundle, ["violet", "green", "red"])
    with pytest.raises(UsageError, match=r"all know green, red; colours also blue; other also violet; --common"):
        compare([small_bundle, other], data, runs=0)
    result = compare([small_bundle, other], data, runs=0, common=True)
    assert result.restricted
    assert result.classes == ("red", "green")
    assert (result.n, result.outside) == (11, 5)
    assert not result.findings
    labels = {label for d in result.disagreements for label, _ in d.answers}
    assert labels <= {"red", "green"}
    probabilities = load(small_bundle).predict_proba(sorted((data / "red").glob("*.png")))[:, :2].astype(float)
    share = probabilities[:, 0] / probabilities.sum(axis=1)
    losses = -np.log(share).sum()
    greens = load(small_bundle).predict_proba(sorted((data / "green").glob("*.png")))[:, :2].astype(float)
    losses -= np.log(greens[:, 1] / greens.sum(axis=1)).sum()
    assert result.models[0].metrics.log_loss == pytest.approx(losses / 11, rel=1e-5, abs=1e-9)


def test_one_class_in_common_is_too_few(small_bundle, data, tmp_path):
    other = rebuilt(tmp_path / "other.safetensors", small_bundle, ["violet", "red"])
    with pytest.raises(UsageError, match="1 classes in common"):
        compare([small_bundle, other], data, runs=0, common=True)


def test_broken_photos_and_unknown_classes_are_findings_and_never_shift_the_others(
    small_bundle, worse, fill, paint, broken_jpeg, tmp_path
):
    root = fill(tmp_path / "data", red=3, blue=3)
    (root / "red" / "1a.jpg").write_bytes(broken_jpeg.read_bytes())
    paint(root / "Blue" / "0.png", "blue")
    result = compare([small_bundle, worse], root, runs=0)
    assert result.n == 6
    assert result.models[0].metrics == evaluate(small_bundle, root).metrics
    reasons = {re.sub(r".*/data/", "", finding.path): finding.reason for finding in result.findings}
    assert "did you mean 'blue'" in reasons["Blue/0.png"]
    assert "truncated or damaged" in reasons["red/1a.jpg"]
    assert len(reasons) == 2


def test_wrong_wishes_are_sentences(small_bundle, worse, data, tmp_path):
    with pytest.raises(UsageError, match="at least two models, not 1"):
        compare([small_bundle], data)
    with pytest.raises(UsageError, match=r"colours.safetensors is given twice"):
        compare([small_bundle, small_bundle], data)
    with pytest.raises(UsageError, match="two classifiers are called densenet_bc_22_12"):
        compare([load(small_bundle), load(worse)], data)
    with pytest.raises(UsageError, match="runs is -1"):
        compare([small_bundle, worse], data, runs=-1)
    with pytest.raises(UsageError, match="has no split 'val'"):
        compare([small_bundle, worse], data, split="val")
    (tmp_path / "violet").mkdir()
    (tmp_path / "violet" / "a.png").write_bytes(b"")
    with pytest.raises(DataError, match="no class of the data is known"):
        compare([small_bundle, worse], tmp_path)


def test_classifiers_and_any_engine_can_be_compared(small_bundle, data):
    class Constant:
        name = "constant"
        streams = 1

        def run(self, images):
            return np.tile(np.array([[0.0, 1.0, 0.0]], np.float32), (len(images), 1))

    good = load(small_bundle)
    result = compare([good, Classifier(good.info, Constant())], data, names=["good", "green"], runs=0)
    assert result.models[1].engine == "constant"
    assert result.models[1].metrics.top1 == pytest.approx(5 / 16)
    assert result.pairs[0].better == "good"
    assert result.models[0].bytes is None


def test_runs_of_one_name_are_told_apart(small_bundle, worse, data, tmp_path):
    paths = []
    for run, source in (("a", small_bundle), ("b", worse)):
        (tmp_path / run).mkdir()
        paths.append(rebuilt(tmp_path / run / "model.safetensors", source))
    assert [model.name for model in compare(paths, data, runs=0).models] == ["a", "b"]


@pytest.mark.parametrize(
    ("costs", "accuracies", "front"),
    [
        ([1, 2, 3], [0.7, 0.8, 0.9], [True, True, True]),
        ([1, 2, 3], [0.9, 0.8, 0.9], [True, False, False]),
        ([2, 2, 1], [0.8, 0.8, 0.5], [True, True, True]),
        ([5], [0.1], [True]),
    ],
)
def test_pareto_front(costs, accuracies, front):
    assert pareto_front(costs, accuracies, operator.lt) == front


def test_noise_and_metadata_put_nobody_off_the_front():
    noisy = [Timing(5.0, 4.8, 5.3, 30), Timing(5.1, 4.9, 5.2, 30), Timing(9.0, 8.9, 9.1, 30)]
    assert pareto_front(noisy, [0.8, 0.8, 0.8], comparison._faster) == [True, True, False]
    assert pareto_front(noisy, [0.8, 0.9, 0.9], comparison._faster) == [False, True, False]
    assert pareto_front([13_500_064, 13_500_000, 14_000_000], [0.8] * 3, comparison._smaller) == [True, True, False]
    assert pareto_front([13_500_000, 13_500_064], [0.8, 0.9], comparison._smaller) == [False, True]


def test_the_page_stands_alone_and_shows_what_differs(compared, tmp_path):
    page = tmp_path / "page.html"
    write_comparison(page, compared, command="taxonet compare a b", notes=["trained <alike>"])
    text = page.read_text("utf-8")
    assert html.escape(compared.sentences[0]) in text
    assert "prefers-color-scheme: dark" in text
    assert "currentColor" in text
    assert text.count("<img ") == len(compared.disagreements)
    assert "trained &lt;alike&gt;" in text
    assert not re.findall(r'(?:src|href)="(?!data:|#)[^"]+"', text)
    assert not re.findall(r"url\((?!#)", text)


def test_the_json_form_is_json(compared):
    document = json.loads(json.dumps(compared.as_dict()))
    assert document["n"] == 16
    assert document["models"][0]["top1_ci"][0] < document["models"][0]["top1"] < document["models"][0]["top1_ci"][1]
    assert {"single", "single_network", "batch", "batch_network"} < set(document["models"][0]["speed"])
    assert set(document["disagreements"][0]["answers"]) == {"worse", "colours"}
    assert document["pairs"][0]["sentence"]
