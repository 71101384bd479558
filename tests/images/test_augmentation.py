"""Augmentation: determinism, shapes, and that every step does what its name says."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from taxonet.errors import UsageError
from taxonet.images import Augmentation
from taxonet.images.augmentation import Erase, Flip, RandomCrop, RandomResizedCrop
from taxonet.images.trivial_augment import BINS, OPERATIONS, trivial_augment

EVERY_STEP = (
    "random_resized_crop(48, scale=(0.35, 1.0)) | flip | vertical_flip(0.3) | color_jitter(0.2) | trivial_augment | "
    "resize(50) | random_crop(48, padding=4) | center_crop(44) | pad(2) | erase(0.5)"
)


def picture(width=80, height=60, mode="RGB"):
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels).convert(mode)


def numbered(width, height):
    """An image whose pixels name their own position."""
    y, x = np.mgrid[:height, :width]
    return Image.fromarray(np.dstack([y + 1, x + 1, np.full_like(x, 7)]).astype(np.uint8))


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_same_generator_state_same_pixels(mode):
    augmentation = Augmentation.parse(EVERY_STEP)
    outcomes = set()
    for seed in range(30):
        first = augmentation(picture(mode=mode), np.random.default_rng(seed))
        again = augmentation(picture(mode=mode), np.random.default_rng(seed))
        assert first.dtype == np.uint8
        assert first.shape == (48, 48, 3 if mode == "RGB" else 1)
        assert first.flags.writeable
        assert np.array_equal(first, again)
        outcomes.add(first.tobytes())
    assert len(outcomes) == 30


def test_nothing_else_is_drawn_from():
    np.random.seed(0)  # noqa: NPY002
    before = np.random.get_state()[1].tobytes()  # noqa: NPY002
    source = picture()
    pixels = np.array(source)
    Augmentation.parse(EVERY_STEP)(source, np.random.default_rng(1))
    assert np.random.get_state()[1].tobytes() == before  # noqa: NPY002
    assert np.array_equal(np.array(source), pixels)  # the source is left as it was


# --- notation ----------------------------------------------------------------------------------------------------


def test_canonical_form_names_every_value():
    text = "random_resized_crop(224, scale=(0.35, 1)) | flip | color_jitter(0.2) | erase(0.1)"
    augmentation = Augmentation.parse(text)
    assert str(augmentation) == (
        "random_resized_crop(224, scale=(0.35, 1.0), ratio=(0.75, 1.3333333333333333), filter=bicubic) | flip(0.5) | "
        "color_jitter(0.2) | erase(0.1, scale=(0.02, 0.33), ratio=(0.3, 3.3333333333333335))"
    )
    assert Augmentation.parse(str(augmentation)) == augmentation
    assert hash(Augmentation.parse(str(augmentation))) == hash(augmentation)
    assert Augmentation.parse(EVERY_STEP) == Augmentation.parse(str(Augmentation.parse(EVERY_STEP)))


ascending = st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)).map(sorted).map(tuple)


@given(st.integers(1, 4096), ascending, ascending, st.floats(0, 1))
def test_everything_printed_is_read_back_equal(size, scale, ratio, probability):
    steps = (
        RandomResizedCrop(size, scale=scale, ratio=ratio, filter="box"),
        RandomCrop(size, padding=size),
        Flip(probability),
        Erase(probability, scale=scale, ratio=ratio),
    )
    augmentation = Augmentation(steps)
    assert Augmentation.parse(str(augmentation)) == augmentation


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("flipp", "unknown augmentation step 'flipp'; did you mean 'flip'?"),
        ("flip(1.5)", "flip: the probability must be a number from 0.0 to 1.0, not 1.5"),
        ("color_jitter", "color_jitter needs its strength"),
        (
            "random_resized_crop(224, scale=(1.0, 0.3))",
            "two ascending numbers above 0, from 0.0 to 1.0, not (1.0, 0.3)",
        ),
        ("random_resized_crop(224, scale=(0, 0.3))", "two ascending numbers above 0"),
        ("random_resized_crop(224, scale=0.3)", "two ascending numbers above 0"),
        ("random_resized_crop(224, scale=(0.1, 0.2, 0.3))", "two ascending numbers above 0"),
        ("random_resized_crop(224, (0.1, 1))", "random_resized_crop takes only (size) by position, got 2 values"),
        ("random_resized_crop(99999)", "from 1 to 4096, not 99999"),
        ("random_crop(32, padding=-1)", "the padding must be a whole number from 0 to 4096, not -1"),
        ("random_crop(32, pading=4)", "random_crop has no option 'pading'; did you mean 'padding'?"),
        ("erase(0.1) | flip", "is out of order: erase stands last"),
        ("flip | normalize(imagenet)", "unknown augmentation step 'normalize'"),
    ],
)
def test_wrong_text_is_refused_with_a_sentence(text, sentence):
    with pytest.raises(UsageError) as caught:
        Augmentation.parse(text)
    assert sentence in str(caught.value)


def test_wrong_step_or_mode():
    with pytest.raises(UsageError, match="'blur' is not a step of augmentation"):
        Augmentation(("blur",))
    with pytest.raises(UsageError, match="mode RGB or L, not P"):
        Augmentation.parse("flip")(picture(mode="P"), np.random.default_rng(0))
    assert Augmentation(())(picture(), np.random.default_rng(0)).shape == (60, 80, 3)


# --- what the steps do -------------------------------------------------------------------------------------------


def test_flips_flip():
    rng, pixels = np.random.default_rng(0), np.asarray(picture())
    assert np.array_equal(Augmentation.parse("flip(1)")(picture(), rng), pixels[:, ::-1])
    assert np.array_equal(Augmentation.parse("vertical_flip(1)")(picture(), rng), pixels[::-1])
    assert np.array_equal(Augmentation.parse("flip(0) | vertical_flip(0)")(picture(), rng), pixels)
    flips = sum(np.array_equal(Augmentation.parse("flip")(picture(), rng), pixels[:, ::-1]) for _ in range(400))
    assert 150 < flips < 250


@pytest.mark.parametrize("scale", [(0.08, 1.0), (0.35, 0.5)])
def test_random_resized_crop_keeps_to_scale_and_ratio(scale):
    step, rng = RandomResizedCrop(32, scale=scale), np.random.default_rng(0)
    areas, offsets = [], set()
    for _ in range(500):
        left, upper, right, lower = step.box(400, 300, rng)
        width, height = right - left, lower - upper
        assert 0 <= left < right <= 400
        assert 0 <= upper < lower <= 300
        areas.append(width * height / 120_000)
        offsets.add((left, upper))
        assert 0.74 <= width / height <= 1.345
    assert scale[0] * 0.98 <= min(areas) < scale[0] * 1.3
    assert scale[1] * 1.02 >= max(areas) > scale[1] * 0.85
    assert len(offsets) > 300


def test_random_resized_crop_where_no_draw_fits_takes_the_middle():
    step, rng = RandomResizedCrop(8, scale=(1.0, 1.0)), np.random.default_rng(0)
    assert step.box(400, 30, rng) == (180, 0, 220, 30)
    assert step.box(30, 400, rng) == (0, 180, 30, 220)
    assert step.box(1, 1, rng) == (0, 0, 1, 1)


def test_random_resized_crop_resizes_the_part_it_drew():
    step, source = RandomResizedCrop(16, filter="nearest"), numbered(60, 50)
    left, upper, right, lower = step.box(60, 50, np.random.default_rng(3))
    pixels = np.asarray(step.sample(source, np.random.default_rng(3)))
    assert pixels.shape == (16, 16, 3)
    assert upper + 1 <= pixels[..., 0].min()
    assert pixels[..., 0].max() <= lower
    assert left + 1 <= pixels[..., 1].min()
    assert pixels[..., 1].max() <= right


def test_random_crop_shifts_within_its_padding_and_fills_with_zeros():
    source, rng = numbered(32, 32), np.random.default_rng(0)
    seen = set()
    for _ in range(600):
        pixels = Augmentation.parse("random_crop(32)")(source, rng)
        inside = pixels[..., 2] == 7
        y, x = np.argwhere(inside)[0]
        shift = (int(pixels[y, x, 0]) - 1 - int(y), int(pixels[y, x, 1]) - 1 - int(x))
        assert max(map(abs, shift)) <= 4
        assert inside.sum() == (32 - abs(shift[0])) * (32 - abs(shift[1]))
        assert (pixels[~inside] == 0).all()
        seen.add(shift)
    assert len(seen) == 81


def test_random_crop_of_a_small_picture_is_centred():
    pixels = Augmentation.parse("random_crop(16, padding=1)")(numbered(4, 30), np.random.default_rng(0))
    assert pixels.shape == (16, 16, 3)
    assert (pixels[..., 2].any(axis=0)).nonzero()[0].tolist() == [6, 7, 8, 9]


def test_color_jitter_stays_within_its_strength():
    rng, flat = np.random.default_rng(0), Image.new("RGB", (8, 8), (100, 100, 100))
    values = [int(Augmentation.parse("color_jitter(0.2)")(flat, rng)[0, 0, 0]) for _ in range(200)]
    assert 78 <= min(values) < 85
    assert 115 < max(values) <= 122
    assert np.array_equal(Augmentation.parse("color_jitter(0)")(picture(), rng), np.asarray(picture()))


def test_erase_fills_one_rectangle_with_noise():
    rng, areas, hits = np.random.default_rng(0), [], 0
    white = np.full((60, 80, 3), 255, np.uint8)
    for _ in range(300):
        erased = Erase(0.5).sample(white, rng)
        changed = (erased != 255).any(axis=-1)
        if not changed.any():
            continue
        hits += 1
        rows, columns = changed.any(1).nonzero()[0], changed.any(0).nonzero()[0]
        box = changed[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert box.mean() > 0.95  # noise is white itself once in 256³
        areas.append(box.size / changed.size)
    assert 110 < hits < 190
    assert 0.015 <= min(areas) < 0.05
    assert 0.25 < max(areas) <= 0.34
    assert (white == 255).all()
    assert Erase(0.0).sample(white, rng) is white


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (80, 60)])
@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_of_trivial_augment(name, size, mode):
    operation, source = OPERATIONS[name], picture(*size, mode=mode)
    for magnitude in (operation.weakest, operation.strongest, -operation.strongest):
        if magnitude >= 0 or operation.signed:
            result = operation.apply(source, magnitude)
            assert (result.size, result.mode) == (source.size, mode)
    if name not in ("autocontrast", "equalize"):
        assert np.array_equal(np.asarray(operation.apply(source, operation.weakest)), np.asarray(source))
    if name not in ("identity", "autocontrast") and size == (80, 60) and (name, mode) != ("color", "L"):
        assert not np.array_equal(np.asarray(operation.apply(source, operation.strongest)), np.asarray(source))


def test_trivial_augment_draws_every_operation_and_strength(monkeypatch):
    drawn = set()
    for name, operation in OPERATIONS.items():
        record = type(operation)(
            lambda image, m, name=name: drawn.add((name, round(m, 6))) or image,
            operation.weakest,
            operation.strongest,
            operation.signed,
        )
        monkeypatch.setitem(OPERATIONS, name, record)
    rng = np.random.default_rng(0)
    for _ in range(12000):
        trivial_augment(picture(2, 2), rng)
    counts = {name: len({m for n, m in drawn if n == name}) for name in OPERATIONS}
    assert counts["rotate"] == counts["shear_x"] == 2 * BINS - 1
    assert counts["solarize"] == counts["posterize"] == BINS
    assert counts["identity"] == 1


def test_images_need_no_torch():
    code = "import sys, taxonet.images; sys.exit('torch' in sys.modules or 'scipy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
