"""Every sheet loads, its facts agree with one another, and a malformed sheet is refused with its place."""

import dataclasses
import json
from importlib import resources
from typing import get_args

import pytest

from taxonet import sheets
from taxonet.errors import UsageError
from taxonet.sheets import Sheet, VariantFacts, families, load_sheet, parse_sheet

SHEETS = [load_sheet(family) for family in families()]
VARIANTS = [facts for sheet in SHEETS for facts in sheet.variants.values()]
RECIPES = [pytest.param(recipe, id=f"{s.family}-{key}") for s in SHEETS for key, recipe in s.recipes.items()]
FEATURES = {  # maps before the classifier, where the variant's name does not change them
    "mobilenet_v1": 1024,
    "mobilenet_v1_075": 768,
    "mobilenet_v1_050": 512,
    "mobilenet_v1_025": 256,
}


def sheet_text(family: str) -> str:
    return resources.files(sheets).joinpath(f"{family}.toml").read_text("utf-8")


def test_the_families() -> None:
    assert {"densenet", "mobilenet_v1", "resnet", "senet", "shufflenet_v1"} <= set(families())
    assert families() == sorted(families())


def test_a_sheet_is_read_once() -> None:
    assert load_sheet("densenet") is load_sheet("densenet")


@pytest.mark.parametrize("name", ["densnet", "../densenet", "", "DenseNet"])
def test_an_unknown_family_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="there is no sheet for the family"):
        load_sheet(name)


@pytest.mark.parametrize("sheet", SHEETS, ids=lambda sheet: sheet.family)
def test_a_sheet_is_complete(sheet: Sheet) -> None:
    assert sheet.title
    assert sheet.idea.endswith(".")
    assert 2012 <= sheet.paper.year <= 2021
    assert sheet.variants
    assert sheet.divergences
    assert "imagenet" in sheet.recipes
    assert all(
        dataclasses.astuple(divergence) and all(dataclasses.astuple(divergence)) for divergence in sheet.divergences
    )
    json.dumps(dataclasses.asdict(sheet))


# families whose members are other families' networks or have another name in their paper
NAMED = {
    "igc": ("igc", "regconv"),
    "resnet": ("resnet", "wrn"),
    "residual_attention": ("attention",),
    "senet": ("se",),
}


def test_variant_names_are_unique_across_families() -> None:
    assert len({facts.name for facts in VARIANTS}) == len(VARIANTS)
    for sheet in SHEETS:
        words = NAMED.get(sheet.family, (sheet.family,))
        assert all(any(word in name for word in words) for name in sheet.variants)


@pytest.mark.parametrize("facts", VARIANTS, ids=lambda facts: facts.name)
def test_published_figures_are_plausible(facts: VariantFacts) -> None:
    for figure in facts.published:
        assert figure.source in get_args(sheets.Source)
        assert figure.unit in {"%", "M", "G", "ms"}
        assert (figure.data == "") == (figure.unit != "%")
        assert 0 < figure.value < 100 or figure.unit in {"M", "G", "ms"}
    keys = [(figure.data, figure.metric, figure.source) for figure in facts.published]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("facts", VARIANTS, ids=lambda facts: facts.name)
def test_published_parameters_round_the_count(facts: VariantFacts) -> None:
    known_otherwise = {
        ("mobilenet_v2_140", 6.9),
        ("mobilenet_v2_140", 6.06),
        ("mobilenet_v2", 3.4),
        ("mobilenet_v2", 3.47),
        ("preresnet1001_cifar", 10.2),
        ("alexnet_two_group", 60),  # "60 million" are 60.97
    }
    for figure in facts.published:
        if figure.metric == "parameters" and (facts.name, figure.value) not in known_otherwise:
            whole = figure.value >= 12 and figure.value.is_integer()  # printed without decimals
            assert figure.value == pytest.approx(facts.params / 1e6, abs=0.5 if whole else 0.101)


@pytest.mark.parametrize("facts", VARIANTS, ids=lambda facts: facts.name)
def test_counts_differ_from_the_variant(facts: VariantFacts) -> None:
    assert facts.channels == 3
    assert facts.params > 0
    for count in facts.counts:
        assert (count.params is None) != (count.macs is None)
        if count.num_classes is not None and count.params is not None:
            assert (count.params - facts.params) % (count.num_classes - facts.num_classes) == 0
        if count.input_size is not None and count.macs is not None and facts.macs is not None:
            ratio = (count.input_size / facts.input_size) ** 2
            assert count.macs / facts.macs == pytest.approx(ratio, rel=0.2)


@pytest.mark.parametrize(("name", "features"), FEATURES.items())
def test_the_background_class_costs_one_row(name: str, features: int) -> None:
    facts = load_sheet("mobilenet_v1").variants[name]
    (params,) = [count.params for count in facts.counts if count.num_classes == 1001]
    assert params == facts.params + features + 1


def test_widening_the_head_of_small_costs_its_weights() -> None:
    variants = load_sheet("mobilenet_v3").variants
    for width, last in {"_035": 200, "_050": 288, "_075": 432, "": 576, "_125": 720}.items():
        narrow, wide = variants[f"mobilenet_v3_small{width}"], variants[f"mobilenet_v3_small{width}_1280"]
        assert wide.params - narrow.params == 256 * (last + 1 + 1000)
        assert wide.macs_m is not None
        assert narrow.macs_m is not None
        assert wide.macs_m - narrow.macs_m == pytest.approx(256 * (last + 1000) / 1e6, abs=0.011)


def test_multiply_adds_are_whole_numbers_or_absent() -> None:
    variants = load_sheet("mobilenet_v3").variants
    assert variants["mobilenet_v3_large"].macs == 216_590_000
    assert load_sheet("densenet").variants["densenet121"].macs == 2_834_160_000


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_says_what_its_schedule_needs(recipe: sheets.RecipeFacts) -> None:
    assert recipe.lr is not None
    assert recipe.lr > 0
    if recipe.schedule == "step":
        assert recipe.gamma is not None
        assert recipe.milestones == tuple(sorted(recipe.milestones or ()))
        assert all(0 < milestone < 1 for milestone in recipe.milestones or (0,))
    elif recipe.schedule in ("linear", "cosine"):
        assert recipe.epochs is not None
    else:
        assert recipe.schedule == "exponential"
        assert recipe.decay_rate is not None
        assert recipe.decay_epochs is not None
    assert recipe.note


def test_densenet_steps_fall_on_whole_epochs() -> None:
    recipe = load_sheet("densenet").recipes["imagenet"]
    assert [round(m * (recipe.epochs or 0), 6) for m in recipe.milestones or ()] == [30, 60]


def test_a_value_from_memory_says_so() -> None:
    first = load_sheet("densenet").variants["densenet121"].published[0]
    assert (first.value, first.source) == (25.02, "unverified")
    assert load_sheet("mobilenet_v1").recipes["imagenet"].source == "unverified"


@pytest.mark.parametrize(
    ("good", "bad", "sentence"),
    [
        ("params = 3504872", "param = 3504872", r"variant\[3\] has an unknown key 'param'; did you mean 'params'"),
        ("params = 3504872\n", "", r"variant\[3\] lacks the key 'params'"),
        ("params = 3504872", "params = 3504872.0", r"variant\[3\].params is 3504872.0, it must be int"),
        ("params = 3504872", "params = true", r"variant\[3\].params is True, it must be int"),
        ("params = 3504872", "params = 3504872\nmacs = 1", "unknown key 'macs'"),
        ('source = "paper"', 'source = "book"', "it must be one of paper, authors, repository, unverified"),
        ("value = 72.0", 'value = "72"', "it must be float"),
        ('optimizer = "rmsprop_tf"', 'optimizer = "adam"', "it must be one of sgd, rmsprop_tf"),
        ("[[divergence]]", "[[divergences]]", "unknown key 'divergences'"),
        ("[paper]", "[[paper]]", "paper is .*, it must be a table"),
        ('name = "mobilenet_v2_130"', 'name = "mobilenet_v2_140"', "names a variant twice"),
        ('family = "mobilenet_v2"', 'family = "mobilenet_v3"', "says that its family is 'mobilenet_v3'"),
    ],
)
def test_a_malformed_sheet_is_refused(good: str, bad: str, sentence: str) -> None:
    text = sheet_text("mobilenet_v2")
    assert good in text
    with pytest.raises(ValueError, match=sentence):
        parse_sheet(text.replace(good, bad, 1), "mobilenet_v2")
