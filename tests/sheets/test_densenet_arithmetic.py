"""The DenseNet sheet against the family's arithmetic: sums over layers in closed form, no network is built."""

from collections.abc import Sequence
from typing import NamedTuple

import pytest

from taxonet.sheets import load_sheet

FACTS = load_sheet("densenet").variants


class Form(NamedTuple):
    """What fixes a DenseNet: layers a block, growth k, maps after the stem, B, θ, and the 7×7/2 stem."""

    blocks: tuple[int, ...]
    growth: int
    stem: int
    bottleneck: bool
    theta: float
    large: bool


def plain(layers: int, growth: int) -> Form:
    return Form((layers,) * 3, growth, 16, False, 1.0, False)


def bc(layers: int, growth: int) -> Form:
    return Form((layers,) * 3, growth, 2 * growth, True, 0.5, False)


def large(blocks: Sequence[int], growth: int = 32) -> Form:
    return Form(tuple(blocks), growth, 2 * growth, True, 0.5, True)


FORMS = {
    "densenet_40_12": plain(12, 12),
    "densenet_100_12": plain(32, 12),
    "densenet_100_24": plain(32, 24),
    "densenet_bc_100_12": bc(16, 12),
    "densenet_bc_250_24": bc(41, 24),
    "densenet_bc_190_40": bc(31, 40),
    "densenet_bc_40_36": bc(6, 36),
    "densenet_bc_40_48": bc(6, 48),
    "densenet_bc_40_60": bc(6, 60),
    "densenet_bc_40_12": bc(6, 12),
    "densenet_bc_22_12": bc(3, 12),
    "densenet_b_100_12": Form((16,) * 3, 12, 16, True, 1.0, False),
    "densenet_c_40_12": Form((12,) * 3, 12, 16, False, 0.5, False),
    "densenet121": large((6, 12, 24, 16)),
    "densenet169": large((6, 12, 32, 32)),
    "densenet201": large((6, 12, 48, 32)),
    "densenet264": large((6, 12, 64, 48)),
    "densenet161": large((6, 12, 36, 24), 48),
    "densenet232_48": large((6, 12, 48, 48), 48),
    "densenet_cosine_264": large((6, 12, 64, 48)),
    "densenet_cosine_264_48": large((6, 12, 64, 48), 48),
}


def features(form: Form) -> int:
    """Maps before the classifier."""
    maps = form.stem
    for layers in form.blocks[:-1]:
        maps = int((maps + layers * form.growth) * form.theta)
    return maps + form.blocks[-1] * form.growth


def block_cost(layers: int, maps: int, growth: int, bottleneck: bool) -> tuple[int, int]:
    """Convolution weights of a block, and channels that its norms see; layer i reads maps + i·k channels."""
    read = layers * maps + growth * layers * (layers - 1) // 2
    if not bottleneck:
        return 9 * growth * read, read
    return 4 * growth * read + layers * 9 * (4 * growth) * growth, read + layers * 4 * growth


def cost(form: Form, size: int, classes: int) -> tuple[int, int]:
    """Parameters, and multiply-adds for one RGB image of size × size pixels."""
    weights = form.stem * 3 * (49 if form.large else 9)
    side = size // 2 if form.large else size
    params, macs = weights + (2 * form.stem if form.large else 0), weights * side**2
    side = side // 2 if form.large else side
    maps = form.stem
    for number, layers in enumerate(form.blocks, start=1):
        weights, normed = block_cost(layers, maps, form.growth, form.bottleneck)
        maps += layers * form.growth
        if number < len(form.blocks):  # the transition works at the block's map size
            kept = int(maps * form.theta)
            weights, normed, maps = weights + maps * kept, normed + maps, kept
        params, macs, side = params + weights + 2 * normed, macs + weights * side**2, side // 2
    return params + 2 * maps + classes * (maps + 1), macs + classes * maps


def test_every_variant_has_its_form() -> None:
    assert set(FORMS) == set(FACTS)


@pytest.mark.parametrize("name", FORMS)
def test_parameters_and_multiply_adds(name: str) -> None:
    facts = FACTS[name]
    params, macs = cost(FORMS[name], facts.input_size, facts.num_classes)
    assert params == facts.params
    assert round(macs / 1e6, 2) == facts.macs_m


@pytest.mark.parametrize("name", [name for name, form in FORMS.items() if not form.large])
def test_cifar_100_counts(name: str) -> None:
    (count,) = FACTS[name].counts
    assert count.num_classes == 100
    assert count.params == cost(FORMS[name], 32, 100)[0] == FACTS[name].params + 90 * (features(FORMS[name]) + 1)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("densenet_40_12", 448),
        ("densenet_100_24", 2320),
        ("densenet_bc_250_24", 1734),
        ("densenet_bc_190_40", 2190),
        ("densenet121", 1024),
        ("densenet264", 2688),
        ("densenet161", 2208),
    ],
)
def test_features_before_the_classifier(name: str, expected: int) -> None:
    assert features(FORMS[name]) == expected


def test_a_stem_of_2k_would_miss_the_published_count() -> None:
    wide = FORMS["densenet_100_24"]._replace(stem=48)
    assert cost(wide, 32, 10)[0] == 28_071_706
    assert "28,071,706" in str(load_sheet("densenet").divergences)
