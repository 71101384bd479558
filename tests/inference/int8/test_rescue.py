"""What the later settings are for: a network that the plain one destroys and that one layer in float saves."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import openvino
import pytest
import torch
from torch import nn

from taxonet.console import Silent
from taxonet.inference.engines.openvino_engine import OpenVinoEngine
from taxonet.inference.int8 import graph
from taxonet.inference.int8.photos import Photos
from taxonet.inference.int8.quantise import described
from taxonet.inference.int8.search import SETTINGS, Search, answers

PLAIN, WHOLE, SENSITIVE, AWARE = SETTINGS[0], SETTINGS[1], SETTINGS[4], SETTINGS[5]
COLOURS = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0], [0, 255, 255], [255, 0, 255]])


class Chain(nn.Module):
    """Four convolutions that nothing leads past, and a classifier; pixels (N, H, W, C) → logits."""

    def __init__(self):
        super().__init__()
        sides = (3, 16, 16, 16, 16)
        pairs = pairwise(sides)
        self.convolutions = nn.ModuleList([nn.Conv2d(a, b, 3, padding=1) for a, b in pairs])
        self.classifier = nn.Linear(16, len(COLOURS))

    def features(self, pixels, count=4):
        x = pixels.permute(0, 3, 1, 2).float() / 255
        for convolution in self.convolutions[:count]:
            x = torch.relu(convolution(x))
        return x

    def forward(self, pixels):
        return self.classifier(self.features(pixels).mean((2, 3)))


@pytest.fixture(scope="module")
def photos():
    targets = np.arange(60) % len(COLOURS)
    noise = np.random.default_rng(0).normal(0, 30, (60, 16, 16, 3))
    return Photos(np.clip(COLOURS[targets][:, None, None] + noise, 0, 255).astype(np.uint8), targets)


def trained(photos):
    torch.manual_seed(0)
    network, pixels, targets = Chain(), torch.from_numpy(photos.pixels), torch.from_numpy(photos.targets)
    optimizer = torch.optim.Adam(network.parameters(), 0.01)
    for _ in range(100):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(pixels), targets).backward()
        optimizer.step()
    return network


def graph_of(network, photos):
    model = openvino.convert_model(network, example_input=torch.from_numpy(photos.pixels[:1]))
    model.reshape([-1, *photos.pixels.shape[1:]])
    model.output(0).get_tensor().set_names({"logits"})
    return model


@pytest.fixture(scope="module")
def dwarfed(photos):
    """A trained network of which one channel is 10,000 times the others before the third convolution."""
    network, pixels = trained(photos), torch.from_numpy(photos.pixels)
    _, second, third, _ = network.convolutions
    with torch.no_grad():  # the same function
        values = network.features(pixels, 2)
        use = values.mean((0, 2, 3)) * third.weight.abs().sum((0, 2, 3))
        use[values.amax((0, 2, 3)) == 0] = torch.inf
        channel = int(use.argmin())  # what it drowns is nearly everything
        second.weight[channel] *= 1e4
        second.bias[channel] *= 1e4
        third.weight[:, channel] /= 1e4
    return graph_of(network, photos)


@pytest.fixture
def search(dwarfed, photos):
    return Search(dwarfed, photos, photos, photos, temperature=1.0, max_drop=1, listener=Silent())


def test_in_float_every_answer_is_right_and_the_plain_setting_loses_most(search, photos):
    assert (search.before.argmax(axis=1) == photos.targets).all()
    found = search.run((PLAIN,))
    assert found.model is None
    assert found.trials[0].choosing.points > 50
    assert (found.trials[0].float_layers, found.trials[0].layers) == (0, 5)


@pytest.mark.parametrize("settings", [(PLAIN, SENSITIVE), (AWARE,)], ids=["sensitive", "accuracy-aware"])
def test_a_later_setting_keeps_the_answers_with_the_broken_layer_alone_in_float(search, photos, settings):
    found = search.run(settings)
    assert found.trials[-1].problem is None
    assert [layer.name for layer in graph.layers(found.model) if not layer.int8] == ["convolutions.2"]
    assert (answers(found.engine, photos.pixels, Silent()).argmax(axis=1) == photos.targets).all()


def test_accuracy_aware_stops_at_the_drop_that_is_allowed(dwarfed, photos):
    """What the plain setting loses is allowed: nothing is given back; a tenth of a point less, and the layer is."""
    lost = Search(dwarfed, photos, photos, photos, 1.0, 1, Silent()).run((PLAIN,)).trials[0].choosing.points
    for allowed, floats in ((lost, 0), (lost - 0.1, 1)):
        found = Search(dwarfed, photos, photos, photos, 1.0, allowed, Silent()).run((AWARE,))
        assert (found.trials[-1].problem, found.trials[-1].float_layers) == (None, floats)


def test_photos_that_differ_in_brightness_need_the_whole_ranges():
    """The mean of the photos' extremes lies between the classes: beyond it NNCF's own ranges make them one."""
    targets = np.arange(60) % 6
    levels = np.array([4, 12, 30, 60, 140, 250])
    noise = np.random.default_rng(0).normal(0, 1, (60, 16, 16, 3))
    photos = Photos(np.clip(levels[targets][:, None, None, None] + noise, 0, 255).astype(np.uint8), targets)
    model = graph_of(trained(photos), photos)
    search = Search(model, photos, photos, photos, temperature=1.0, max_drop=1, listener=Silent())
    found = search.run((PLAIN, WHOLE))
    assert [trial.problem is None for trial in found.trials] == [False, True]
    assert found.trials[0].choosing.points > 10
    search.max_drop = -1  # nothing will do
    later = replace(SENSITIVE, accurate_bias=False)  # the ranges of the better one
    plain, whole, sensitive = (trial.choosing.points for trial in search.run((PLAIN, WHOLE, later)).trials)
    assert sensitive == whole < plain


def test_every_setting_in_its_order_does_what_it_says(search):
    search.max_drop = -1  # nothing will do, so that all are tried
    trials = search.run(SETTINGS[:5]).trials
    assert [trial.setting for trial in trials] == [setting.name for setting in SETTINGS[:5]]
    assert [trial.float_layers for trial in trials] == [0, 0, 0, 0, 1]  # the layers are not SmoothQuant's
    assert trials[4].choosing.points == 0


def test_without_a_setting_before_it_there_is_nothing_to_rank(search):
    (trial,) = search.run((SENSITIVE,)).trials
    assert trial.problem == "no setting before it was finished, of which layers could be ranked"


@pytest.mark.parametrize("wrong", [1, 2, 100])
def test_a_graph_that_is_compiled_wrongly_for_several_streams_is_compiled_again(
    dwarfed, search, photos, monkeypatch, wrong
):
    """As OpenVINO does to some int8 graphs, by chance; where it never succeeds, one stream does the work."""
    model = search.run((PLAIN, SENSITIVE)).model
    compile_, compiled = OpenVinoEngine._compile, []

    def by_chance(engine, streams):
        compiled.append(streams)
        if streams > 1 and compiled.count(streams) <= wrong:
            return compile_(OpenVinoEngine(broken), streams)
        return compile_(engine, streams)

    broken = model.clone()
    names = {node.get_friendly_name(): node for node in broken.get_ops()}
    bias = next(node for name, node in names.items() if "classifier" in name and node.get_type_name() == "Add")
    other = openvino.opset13.constant(1e4 * np.arange(6, dtype=np.float32)[None])
    bias.input(1).replace_source_output(other.output(0))
    monkeypatch.setattr(OpenVinoEngine, "_compile", by_chance)
    engine = OpenVinoEngine(model)
    engine.streams = 2
    assert (engine.run(photos.pixels).argmax(axis=1) == photos.targets).all()
    assert compiled.count(2) == min(wrong + 1, 5)


def test_photos_that_chose_between_settings_are_said_to_have(search):
    _, report = described(search, (PLAIN, WHOLE, SENSITIVE), timed=False)
    assert "the measured photos had a part in the choice: 3 settings were tried on them" in report.notes
