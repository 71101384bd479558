"""Preprocessing: the notation, torchvision's rounding, exact normalisation, and the sentences of its errors."""

import copy
import io
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from taxonet.errors import ImageError, UsageError
from taxonet.images import Limits, Preprocessing, decode
from taxonet.images.geometry import FILTERS, CenterCrop, Fit, Pad, Resize, Squash, crop_offset
from taxonet.images.notation import parse_calls
from taxonet.images.preprocessing import NORMALIZATIONS, Exif, Grey, Normalize, Rgb

IMAGENET = "exif | rgb | resize(256, bicubic) | center_crop(224) | normalize(imagenet)"


def picture(width, height, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


def jpeg(image, **options):
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **options)
    return buffer.getvalue()


# --- notation ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        (IMAGENET, IMAGENET),
        ("exif|rgb|resize(256)|center_crop(224)|normalize(imagenet)", IMAGENET),
        ("\n rgb |\tresize ( size = 32 , filter=box )| normalize( none )", "rgb | resize(32, box) | normalize(unit)"),
        ("rgb|center_crop(8, 8)|normalize(half)", "rgb | center_crop(8) | normalize(half)"),
        ("rgb|center_crop(8,9)|normalize(half)", "rgb | center_crop(8, 9) | normalize(half)"),
        (
            "grey()|squash(28,28)|normalize((0.5), (.25,))",
            "grey | squash(28, 28, bicubic) | normalize((0.5,), (0.25,))",
        ),
        (
            "rgb|fit(8,nearest)|pad(2)|normalize((0,1e-1,+2), (1,1,1))",
            "rgb | fit(8, nearest) | pad(2) | normalize((0.0, 0.1, 2.0), (1.0, 1.0, 1.0))",
        ),
    ],
)
def test_canonical_form(written, canonical):
    preprocessing = Preprocessing.parse(written)
    assert str(preprocessing) == canonical
    assert Preprocessing.parse(canonical) == preprocessing
    assert hash(Preprocessing.parse(canonical)) == hash(preprocessing)


sizes = st.integers(1, 4096)
filters = st.sampled_from(sorted(FILTERS))
geometry = st.one_of(
    st.builds(Resize, sizes, filters),
    st.builds(Squash, sizes, sizes, filters),
    st.builds(Fit, sizes, filters),
    st.builds(CenterCrop, sizes),
    st.builds(CenterCrop, sizes, sizes),
    st.builds(Pad, sizes),
)


def normalizations(channels):
    means = st.tuples(*[st.floats(-255, 255)] * channels)
    stds = st.tuples(*[st.floats(1e-6, 255)] * channels)
    return st.one_of(
        st.builds(Normalize, st.sampled_from([*NORMALIZATIONS, "none"])), st.builds(Normalize, means, stds)
    )


@st.composite
def preprocessings(draw):
    exif = draw(st.sampled_from([(), (Exif(),)]))
    colour, channels = draw(st.sampled_from([(Rgb(), 3), (Grey(), 1)]))
    return Preprocessing((*exif, colour, *draw(st.lists(geometry, max_size=5)), draw(normalizations(channels))))


@given(preprocessings())
def test_everything_printed_is_read_back_equal(preprocessing):
    again = Preprocessing.parse(str(preprocessing))
    assert again == preprocessing
    assert hash(again) == hash(preprocessing)
    assert str(again) == str(preprocessing)


@given(preprocessings(), st.sampled_from([1, 3]))
def test_with_channels_gives_a_valid_value(preprocessing, channels):
    changed = preprocessing.with_channels(channels)
    assert changed.channels == channels == len(changed.mean) == len(changed.std)
    assert changed.with_channels(channels) == changed
    assert Preprocessing.parse(str(changed)) == changed


@given(st.text(max_size=60) | st.text("|(),=.0123456789abcresizenormp ", max_size=60))
def test_any_text_is_read_or_refused_with_a_sentence(text):
    try:
        assert str(Preprocessing.parse(text))
    except UsageError as error:
        assert str(error)  # noqa: PT017


def test_value_can_be_pickled_and_copied():
    preprocessing = Preprocessing.parse(IMAGENET)
    assert preprocessing.channels == 3
    assert pickle.loads(pickle.dumps(preprocessing)) == preprocessing == copy.deepcopy(preprocessing)
    with pytest.raises(AttributeError):
        preprocessing.steps = ()
    assert hash(Preprocessing(list(preprocessing.steps))) == hash(preprocessing)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("rgb | rezise(256) | normalize(unit)", "unknown preprocessing step 'rezise'; did you mean 'resize'?"),
        ("rgb | zzz | normalize(unit)", "unknown preprocessing step 'zzz'; the steps are exif, rgb, grey, resize"),
        ("rgb | resize(256, bicubc) | normalize(unit)", "the filter must be one of bicubic, bilinear"),
        ("rgb | resize(256, bicubc) | normalize(unit)", "not bicubc; did you mean 'bicubic'?"),
        (
            "rgb | normalize(imagnet)",
            "normalize: the mean must be one of imagenet, half, cifar10, unit, not imagnet; did",
        ),
        ("rgb | resize(0) | normalize(unit)", "resize: the size must be a whole number from 1 to 4096, not 0"),
        ("rgb | resize(4097) | normalize(unit)", "from 1 to 4096, not 4097"),
        ("rgb | resize(1e6) | normalize(unit)", "from 1 to 4096, not 1000000.0"),
        ("rgb | resize(bicubic) | normalize(unit)", "from 1 to 4096, not bicubic"),
        ("rgb | center_crop(224, 0) | normalize(unit)", "center_crop: the width must be a whole number"),
        ("rgb | resize | normalize(unit)", "resize needs its size, as in resize(…)"),
        ("rgb | resize(1, box, 3) | normalize(unit)", "resize takes only (size, filter) by position, got 3 values"),
        ("rgb(3) | normalize(unit)", "rgb takes none by position, got 1 values"),
        ("rgb | resize(256, flter=box) | normalize(unit)", "resize has no option 'flter'; did you mean 'filter'?"),
        ("rgb | resize(256, size=1) | normalize(unit)", "resize got its size twice"),
        ("rgb | resize(size=1, box) | normalize(unit)", "expected a named value, as those before it"),
        ("rgb | normalize((0.5, 0.5), (1, 1))", "a tuple of 1 or 3 numbers"),
        ("rgb | normalize((0.5,), (1,))", "normalize has 1 means, the picture has 3 channels"),
        ("grey | normalize((0,0,0), (1,1,1))", "normalize has 3 means, the picture has 1 channels"),
        ("rgb | normalize((0,0,0), (1,1))", "a tuple of 1 or 3 numbers"),
        ("rgb | normalize((0,0,0), (1,))", "as many numbers as there are channels"),
        ("rgb | normalize((0,0,0))", "a tuple of 1 or 3 numbers"),
        ("rgb | normalize((0,0,0), (1,1,0))", "normalize: the std must be"),
        ("rgb | normalize((0,0,1e999), (1,1,1))", "normalize: the mean must be"),
        ("rgb | normalize(half, (1,1,1))", "the set half brings its own std"),
        ("rgb | resize(4)", "must have normalize exactly once, at the end"),
        ("rgb | normalize(unit) | normalize(unit)", "must have normalize exactly once, at the end"),
        ("resize(4) | normalize(unit)", "must have exactly one of rgb and grey"),
        ("rgb | grey | normalize(unit)", "must have exactly one of rgb and grey"),
        ("rgb | normalize(unit) | resize(4)", "is out of order: exif | rgb or grey | sizes and crops | normalize"),
        ("rgb | exif | normalize(unit)", "is out of order"),
        ("exif | exif | rgb | normalize(unit)", "is out of order"),
        ("resize(4) | rgb | normalize(unit)", "is out of order"),
        ("", "cannot read the preprocessing '' at its end: expected the name of a step"),
        ("rgb |", "at its end: expected the name of a step"),
        ("rgb | resize(", "at its end: expected a number, a word or a tuple"),
        ("rgb | resize(4", "at its end: expected ',' or ')'"),
        ("rgb | resize(4 5)", "at '5)': expected ',' or ')'"),
        ("rgb resize(4)", "at 'resize(4)': expected '|' or the end"),
        ("rgb | resize(__import__('os'))", "expected"),
        ("rgb | resize(((((1)))))", "expected a number, a word or a tuple"),
        ("rgb | " * 16 + "normalize(unit)", "the preprocessing has 17 steps, the limit is 16"),
        ("rgb | resize(" + "9" * 5000 + ")", "the preprocessing has 5014 characters, the limit is 2000"),
        ("rgb | resize(" + "9" * 1900 + ")", "from 1 to 4096"),
        (None, "the preprocessing must be text, not an object of type NoneType"),
    ],
)
def test_wrong_text_is_refused_with_a_sentence(text, sentence):
    with pytest.raises(UsageError) as caught:
        Preprocessing.parse(text)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_steps_of_another_kind_are_refused():
    with pytest.raises(UsageError, match="'flip' is not a step of preprocessing"):
        Preprocessing((Rgb(), "flip", Normalize("unit")))


def test_values_of_the_notation():
    (call,) = parse_calls("a(1, -2.5, word, (1, (x,)), k=(1e3,), l=.5)")
    assert call.positional == (1, -2.5, "word", (1, ("x",)))
    assert call.named == (("k", (1000.0,)), ("l", 0.5))


# --- geometry ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("width", "height", "short", "expected"),
    [
        (500, 375, 256, (341, 256)),  # 341.33
        (375, 500, 256, (256, 341)),
        (640, 427, 256, (383, 256)),  # 383.7: torchvision truncates
        (427, 640, 256, (256, 383)),
        (100, 100, 256, (256, 256)),
        (256, 300, 256, (256, 300)),
        (1, 9, 3, (3, 27)),
    ],
)
def test_resize_rounds_as_torchvision(width, height, short, expected):
    preprocessing = Preprocessing.parse(f"rgb | resize({short}) | normalize(unit)")
    pixels = preprocessing.pixels(picture(width, height))
    assert pixels.shape == (expected[1], expected[0], 3)
    by_hand = picture(width, height).resize(expected, Image.Resampling.BICUBIC)
    assert np.array_equal(pixels, np.asarray(by_hand))


@pytest.mark.parametrize("kernel", FILTERS)
def test_filters_are_pillows(kernel):
    pixels = Preprocessing.parse(f"rgb | squash(20, 30, {kernel}) | normalize(unit)").pixels(picture(71, 53))
    expected = picture(71, 53).resize((30, 20), Image.Resampling[kernel.upper()])
    assert np.array_equal(pixels, np.asarray(expected))


@pytest.mark.parametrize(
    ("side", "crop", "offset"),
    [
        (256, 224, 16),
        (341, 224, 58),
        (343, 224, 60),
        (5, 4, 0),
        (7, 4, 2),
        (4, 4, 0),
        (3, 4, 0),
        (2, 5, -1),
        (1, 4, -1),
    ],
)  # half-way offsets go to the even number, as Python's and torchvision's round
def test_crop_offsets(side, crop, offset):
    assert crop_offset(side, crop) == offset


@pytest.mark.parametrize("size", [(500, 375), (375, 500), (640, 427), (341, 256), (61, 53), (300, 41), (256, 256)])
@pytest.mark.parametrize("text", ["resize(48, {}) | center_crop(41)", "squash(50, 47, {}) | center_crop(33, 44)"])
@pytest.mark.parametrize("kernel", FILTERS)
def test_a_resize_that_computes_only_the_crop_gives_the_crop(size, text, kernel):
    source = picture(20, 15).resize(size, Image.Resampling.BICUBIC)
    resize, crop = (f"rgb | {step} | normalize(unit)" for step in text.format(kernel).split(" | "))
    resized = Image.fromarray(Preprocessing.parse(resize).pixels(source))
    expected = Preprocessing.parse(crop).pixels(resized).astype(int)
    both = Preprocessing.parse(f"rgb | {text.format(kernel)} | normalize(unit)").pixels(source)
    assert np.abs(both - expected).max() <= 1
    assert np.abs(both - expected).mean() < 0.02  # a tenth of a pixel beside it: 3


@pytest.mark.parametrize(
    "steps",
    ["resize(32, nearest) | center_crop(20)", "resize(32, box) | center_crop(20)", "resize(20) | center_crop(31)"],
)
def test_a_crop_that_the_resize_cannot_compute_is_cut_afterwards(steps):
    source = picture(71, 53)
    resize, crop = (f"rgb | {step} | normalize(unit)" for step in steps.split(" | "))
    resized = Image.fromarray(Preprocessing.parse(resize).pixels(source))
    both = Preprocessing.parse(f"rgb | {steps} | normalize(unit)").pixels(source)
    assert np.array_equal(both, Preprocessing.parse(crop).pixels(resized))


def test_center_crop_cuts_the_middle_and_pads_with_zeros():
    source = picture(9, 5)
    pixels = Preprocessing.parse("rgb | center_crop(8, 4) | normalize(unit)").pixels(source)
    expected = np.zeros((8, 4, 3), np.uint8)
    expected[1:6] = np.asarray(source)[:, 2:6]
    assert np.array_equal(pixels, expected)


def test_fit_keeps_the_whole_picture():
    source = Image.new("RGB", (40, 20), (255, 255, 255))
    pixels = Preprocessing.parse("rgb | fit(10) | normalize(unit)").pixels(source)
    assert pixels.shape == (10, 10, 3)
    assert (pixels[2:7] == 255).all()
    assert (pixels[:2] == 0).all()
    assert (pixels[7:] == 0).all()


def test_pad_adds_zeros():
    source = picture(4, 3)
    pixels = Preprocessing.parse("rgb | pad(2) | normalize(unit)").pixels(source)
    assert np.array_equal(pixels, np.pad(np.asarray(source), ((2, 2), (2, 2), (0, 0))))


def test_a_thread_of_a_picture_is_refused_not_resized_to_gigabytes():
    with pytest.raises(ImageError, match=r"1×100000: resize\(256, bicubic\) would make it 256×25600000"):
        Preprocessing.parse(IMAGENET).pixels(np.zeros((100000, 1, 3), np.uint8))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(1201, 803), (640, 960)])
def test_scaled_decode_gives_the_shape_and_nearly_the_pixels_of_the_full_one(orientation, size):
    smooth = picture(9, 7).resize(size, Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = jpeg(smooth, quality=95, exif=exif)
    preprocessing = Preprocessing.parse("exif | rgb | resize(77) | center_crop(64, 100) | normalize(imagenet)")
    full = preprocessing.pixels(decode(data))
    scaled = preprocessing.pixels(data)
    assert min(decode(data, short_side=preprocessing.short_side).size) < 700
    assert scaled.shape == full.shape
    assert np.abs(scaled.astype(int) - full).mean() < 0.6


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        (IMAGENET, 256),
        ("rgb | resize(256, nearest) | normalize(unit)", None),
        ("rgb | squash(30, 50) | normalize(unit)", 50),
        ("rgb | fit(60) | normalize(unit)", 60),
        ("rgb | center_crop(1000) | resize(20) | normalize(unit)", None),
        ("rgb | normalize(unit)", None),
    ],
)
def test_hint_for_the_decoder(text, hint):
    assert Preprocessing.parse(text).short_side == hint


def test_output_size():
    def size(geometry):
        return Preprocessing.parse(f"rgb | {geometry} | normalize(unit)").output_size

    assert size("resize(256) | center_crop(224)") == (224, 224)
    assert size("squash(10, 20) | pad(3)") == (16, 26)
    assert size("fit(10) | resize(20)") == (20, 20)
    assert size("squash(10, 20) | resize(15)") == (15, 30)
    with pytest.raises(UsageError, match="fixes no size; end it with center_crop, squash or fit"):
        size("resize(256) | pad(3)")


def test_with_size_keeps_the_ratio():
    preprocessing = Preprocessing.parse(IMAGENET)
    expected = "exif | rgb | resize({}, bicubic) | center_crop({}) | normalize(imagenet)"
    assert str(preprocessing.with_size(299)) == expected.format(342, 299)
    assert str(preprocessing.with_size(112)) == expected.format(128, 112)
    assert preprocessing.with_size(224) == preprocessing
    assert Preprocessing.parse("rgb | squash(10, 20) | normalize(unit)").with_size(30).output_size == (30, 60)
    with pytest.raises(UsageError, match="from 1 to 4096"):
        preprocessing.with_size(4000)
    with pytest.raises(UsageError, match="cannot be brought to size 100"):
        Preprocessing.parse("rgb | fit(200) | pad(12) | normalize(unit)").with_size(100)


# --- normalisation -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NORMALIZATIONS)
def test_normalised_is_exact_in_float32_and_close_to_float64(name):
    preprocessing = Preprocessing.parse(f"rgb | normalize({name})")
    pixels = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    mean, std = np.float32(preprocessing.mean), np.float32(preprocessing.std)
    exact = (pixels.astype(np.float32) / np.float32(255) - mean) / std
    out = preprocessing.normalized(pixels)
    assert out.dtype == np.float32
    assert out.flags.c_contiguous
    assert np.array_equal(out, exact.transpose(2, 0, 1))
    wide = (pixels / 255 - np.array(preprocessing.mean)) / np.array(preprocessing.std)
    assert np.allclose(out, wide.transpose(2, 0, 1), atol=1e-5)
    batch = np.stack([pixels, 255 - pixels])
    assert np.array_equal(preprocessing.normalized(batch)[1], preprocessing.normalized(255 - pixels))


def test_published_statistics():
    assert Preprocessing.parse("rgb | normalize(imagenet)").mean == (0.485, 0.456, 0.406)
    assert Preprocessing.parse("rgb | normalize(imagenet)").std == (0.229, 0.224, 0.225)
    half = Preprocessing.parse("rgb | normalize(half)").normalized(np.array([[[0, 255, 0]]], np.uint8))
    assert half.ravel().tolist() == [-1, 1, -1]
    cifar = Preprocessing.parse("rgb | normalize(cifar10)")
    assert np.allclose(np.array(cifar.mean) * 255, [125.3, 123.0, 113.9])
    assert np.allclose(np.array(cifar.std) * 255, [63.0, 62.1, 66.7])


def test_grey():
    grey = Preprocessing.parse(IMAGENET).with_channels(1)
    assert str(grey) == IMAGENET.replace("rgb", "grey")
    assert grey.mean == pytest.approx((0.449,))
    assert grey.with_channels(3) == Preprocessing.parse(IMAGENET)
    source = picture(300, 260)
    assert grey(source).shape == (1, 224, 224)
    assert np.array_equal(grey.pixels(source)[..., 0], grey_by_hand(source))
    explicit = Preprocessing.parse("rgb | normalize((0.1, 0.2, 0.6), (1, 2, 3))").with_channels(1)
    assert str(explicit) == "grey | normalize((0.3,), (2.0,))"
    assert str(explicit.with_channels(3)) == "rgb | normalize((0.3, 0.3, 0.3), (2.0, 2.0, 2.0))"
    with pytest.raises(UsageError, match="1 or 3 channels, not 4"):
        grey.with_channels(4)


def grey_by_hand(source):
    x, y = 300 / 295, 260 / 256  # the crop starts at 16 and 36: round(35.5) is 36
    box = (36 * x, 16 * y, 260 * x, 240 * y)
    return np.asarray(source.convert("L").resize((224, 224), Image.Resampling.BICUBIC, box=box))


@pytest.mark.parametrize(
    "pixels",
    [np.zeros((4, 4, 3), np.float32), np.zeros((4, 4, 1), np.uint8), np.zeros((4, 4), np.uint8)],
)
def test_wrong_pixels_are_refused(pixels):
    with pytest.raises(UsageError, match=r"must be uint8 of shape \(H,W,3\) or \(N,H,W,3\)"):
        Preprocessing.parse("rgb | normalize(unit)").normalized(pixels)


def test_call_is_pixels_then_normalized(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(jpeg(picture(400, 300)))
    preprocessing = Preprocessing.parse(IMAGENET)
    pixels = preprocessing.pixels(path)
    assert pixels.dtype == np.uint8
    assert pixels.flags.writeable
    assert np.array_equal(preprocessing(path), preprocessing.normalized(pixels))
    with pytest.raises(ImageError, match="the limit is 100"):
        preprocessing(path, limits=Limits(10**6, 100))
    with pytest.raises(ImageError, match="the file does not exist"):
        preprocessing(tmp_path / "b.jpg")


def test_exif_only_where_asked(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    data = jpeg(picture(40, 20), exif=exif)
    assert Preprocessing.parse("exif | rgb | normalize(unit)").pixels(data).shape == (40, 20, 3)
    assert Preprocessing.parse("rgb | normalize(unit)").pixels(data).shape == (20, 40, 3)
