"""Dual path networks: the two paths of a unit, the two ways to write it, mean-max pooling over sliding windows."""

import pytest
import torch
import torch.nn.functional as F
from tests.networks.test_networks import randomised

from taxonet.errors import UsageError
from taxonet.images import Preprocessing
from taxonet.networks import create_model
from taxonet.networks.dpn import DualPathUnit


def network(name="dpn68", **options):
    torch.manual_seed(0)
    return randomised(create_model(name, num_classes=5, **options)).eval()


def silenced(unit):
    """The unit with a branch that gives 1 everywhere on the residual maps and 2 on the dense ones."""
    torch.nn.init.zeros_(unit.expand.conv.weight)
    shift = torch.cat((torch.ones(unit.split), torch.full((unit.expand.conv.out_channels - unit.split,), 2.0)))
    unit.expand.register_forward_hook(lambda module, inputs, out: out + shift.view(1, -1, 1, 1))
    return unit.eval()


def test_a_unit_adds_to_one_path_and_appends_to_the_other():
    unit = silenced(DualPathUnit(12, residual=8, growth=3, width=4, groups=2))
    x = torch.randn(2, 12, 5, 5)
    out = unit(x)
    assert out.shape == (2, 15, 5, 5)
    assert torch.equal(out[:, :8], x[:, :8] + 1)
    assert torch.equal(out[:, 8:12], x[:, 8:])
    assert torch.equal(out[:, 12:], torch.full((2, 3, 5, 5), 2.0))


def test_the_first_unit_of_a_stage_projects_both_paths():
    unit = silenced(DualPathUnit(6, residual=8, growth=3, width=4, groups=2, stride=2, first=True))
    x = torch.randn(2, 6, 7, 7)
    paths = F.conv2d(F.relu(unit.project.norm(x)), unit.project.conv.weight, stride=2)
    with torch.no_grad():
        out = unit(x)
    assert torch.allclose(out[:, :8], paths[:, :8] + 1, atol=1e-6)
    assert torch.allclose(out[:, 8:14], paths[:, 8:], atol=1e-6)
    assert out.shape == (2, 8 + 3 * 3, 4, 4)


@pytest.mark.parametrize(
    ("name", "ends"),
    [
        ("dpn68", [144, 320, 704, 832]),
        ("dpn92", [336, 704, 1552, 2688]),
        ("dpn107", [376, 1152, 2432, 2688]),
    ],
)
def test_maps_at_the_end_of_a_stage(name, ends):
    with torch.device("meta"):
        maps = create_model(name).stages(torch.zeros(1, 3, 64, 64))
    assert [maps[f"stage{number}"].shape[1] for number in range(1, 5)] == ends


def test_two_convolutions_are_one_cut_in_two():
    one, two = network("dpn68"), network("dpn68b")
    state, renamed = one.state_dict(), {}
    for key, value in state.items():
        if key.endswith("expand.conv.weight"):
            unit = one.get_submodule(key.removesuffix(".expand.conv.weight"))
            prefix = key.removesuffix("conv.weight")
            renamed |= {f"{prefix}residual.weight": value[: unit.split], f"{prefix}dense.weight": value[unit.split :]}
        else:
            renamed[key] = value
    two.load_state_dict(renamed, strict=True)
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.allclose(one(x), two(x), rtol=1e-4, atol=1e-5)


# --- mean-max pooling


@pytest.mark.parametrize("shape", [(10, 10), (8, 7), (7, 9), (9, 12)])
def test_mean_max_pooling_is_that_of_all_crops_of_the_map(shape):
    """Every 7×7 crop of the map is classified on its own; mean and maximum of these answers are averaged."""
    dpn = network("dpn68", test_pooling="mean_max").double()
    features = torch.rand(3, dpn.num_features, *shape, dtype=torch.float64)
    weight, bias = dpn.classifier.weight, dpn.classifier.bias
    answers = []
    for top in range(shape[0] - 6):
        for left in range(shape[1] - 6):
            crop = features[:, :, top : top + 7, left : left + 7]
            answers.append(crop.mean((2, 3)) @ weight.T + bias)
    mean = sum(answers) / len(answers)
    most = answers[0]
    for answer in answers[1:]:
        most = torch.maximum(most, answer)
    with torch.no_grad():
        assert torch.allclose(dpn.forward_head(features), (mean + most) / 2, rtol=1e-12)
        assert not torch.allclose(dpn.forward_head(features), dpn.classifier(dpn.pooled(features)), rtol=1e-6)


def test_mean_max_pooling_changes_nothing_at_224_pixels_below_and_in_training():
    plain, other = network("dpn68"), network("dpn68", test_pooling="mean_max")
    for side in (7, 6, 3):
        features = torch.rand(2, plain.num_features, side, side)
        assert torch.equal(plain.forward_head(features), other.forward_head(features))
    features = torch.rand(2, plain.num_features, 10, 10)
    assert not torch.equal(plain.forward_head(features), other.forward_head(features))
    assert torch.equal(plain.train().forward_head(features), other.train().forward_head(features))


def test_mean_max_pooling_is_a_choice_of_two():
    with pytest.raises(UsageError, match="must be one of 'mean', 'mean_max'"):
        create_model("dpn68", test_pooling="max")


def test_normalisation_is_that_of_the_authors():
    """(x − (124, 117, 104)) · 0.0167 on values from 0 to 255."""
    with torch.device("meta"):
        preprocessing = Preprocessing.parse(create_model("dpn92").default_preprocessing)
    pixels = torch.randint(0, 256, (1, 4, 4, 3), dtype=torch.uint8)
    expected = (pixels[0].double() - torch.tensor([124.0, 117.0, 104.0])) * 0.0167
    found = torch.from_numpy(preprocessing.normalized(pixels.numpy()))[0].double()
    assert torch.allclose(found, expected.permute(2, 0, 1), atol=2e-5)
