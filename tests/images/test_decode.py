"""decode: every format, mode, orientation and damage, against Pillow's own full decode."""

import contextlib
import io
import os
import struct
import threading
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import simplejpeg
from PIL import Image, ImageOps

from taxonet.errors import ImageError, UsageError
from taxonet.images import DEFAULT_LIMITS, Limits, decode, read_header
from taxonet.images.decode import _TRANSPOSE, SCALE_MARGIN, decode_picture


def scene(height=60, width=90, seed=0):
    """A colour picture with smooth shades, hard edges, a grating and a little noise."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (5, 7, 3), np.uint8)
    pixels = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)).astype(int)
    for _ in range(20):
        y, x = rng.integers(0, height), rng.integers(0, width)
        pixels[y : y + height // 4, x : x + width // 4] += rng.integers(-60, 60, 3)
    pixels += (20 * np.sin(np.arange(width) / 2.5))[None, :, None].astype(int)
    pixels += rng.normal(0, 4, pixels.shape).astype(int)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def opened(data):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # transparency of palettes
        image = Image.open(io.BytesIO(data))
        image.load()
        return image


def plain(data, mode="RGB"):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.asarray(opened(data).convert(mode))


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, bits, colour, raw):
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def palette_with_transparency(alphas):
    image = scene().convert("P", palette=Image.Palette.ADAPTIVE, colors=16)
    return encoded(image, "PNG", transparency=alphas)


CASES = {
    "jpeg-444": lambda: encoded(scene(), "JPEG", subsampling=0),
    "jpeg-422": lambda: encoded(scene(), "JPEG", subsampling=1),
    "jpeg-420": lambda: encoded(scene(), "JPEG", subsampling=2),
    "jpeg-420-odd": lambda: encoded(scene(61, 83), "JPEG", subsampling=2),
    "jpeg-411": lambda: simplejpeg.encode_jpeg(np.asarray(scene()), colorsubsampling="411"),
    "jpeg-440": lambda: simplejpeg.encode_jpeg(np.asarray(scene()), colorsubsampling="440"),
    "jpeg-progressive": lambda: encoded(scene(), "JPEG", progressive=True),
    "jpeg-restart": lambda: encoded(scene(), "JPEG", restart_marker_rows=1),
    "jpeg-rgb": lambda: encoded(scene(), "JPEG", keep_rgb=True),
    "jpeg-grey": lambda: encoded(scene().convert("L"), "JPEG"),
    "jpeg-cmyk": lambda: encoded(scene().convert("CMYK"), "JPEG"),
    "jpeg-cmyk-black": lambda: encoded(with_black(), "JPEG", progressive=True),
    "jpeg-mpo": lambda: encoded(scene(), "MPO", save_all=True, append_images=[scene(seed=1)]),
    "png-rgb": lambda: encoded(scene(), "PNG"),
    "png-rgba": lambda: encoded(with_alpha("RGBA"), "PNG"),
    "png-la": lambda: encoded(with_alpha("LA"), "PNG"),
    "png-l": lambda: encoded(scene().convert("L"), "PNG"),
    "png-1": lambda: encoded(scene().convert("1"), "PNG"),
    "png-p": lambda: encoded(scene().convert("P"), "PNG"),
    "png-p-transparent-index": lambda: palette_with_transparency(3),
    "png-p-transparent-bytes": lambda: palette_with_transparency(bytes(range(0, 256, 16))),
    "png-l-transparent": lambda: encoded(scene().convert("L"), "PNG", transparency=7),
    "png-rgb-transparent": lambda: encoded(scene(), "PNG", transparency=(1, 2, 3)),
    "png-rgb-16": lambda: png(4, 2, 16, 2, b"".join(b"\0" + bytes(range(k, k + 24)) for k in (0, 90))),
    "png-la-16": lambda: png(4, 2, 16, 4, b"".join(b"\0" + bytes(range(k, k + 16)) for k in (0, 90))),
    "webp": lambda: encoded(scene(), "WEBP"),
    "webp-lossless": lambda: encoded(scene(), "WEBP", lossless=True),
    "webp-alpha": lambda: encoded(with_alpha("RGBA"), "WEBP"),
    "webp-alpha-lossless": lambda: encoded(with_alpha("RGBA"), "WEBP", lossless=True),
    "webp-animated": lambda: encoded(scene(), "WEBP", save_all=True, append_images=[scene(seed=1)]),
    "gif": lambda: encoded(scene(), "GIF"),
    "gif-grey": lambda: encoded(scene().convert("L"), "GIF"),
    "gif-transparent": lambda: encoded(scene().convert("P"), "GIF", transparency=5),
    "gif-animated": lambda: encoded(scene(), "GIF", save_all=True, append_images=[scene(seed=1)]),
    "bmp": lambda: encoded(scene(), "BMP"),
    "bmp-l": lambda: encoded(scene().convert("L"), "BMP"),
    "bmp-1": lambda: encoded(scene().convert("1"), "BMP"),
    "bmp-p": lambda: encoded(scene().convert("P"), "BMP"),
    "bmp-rgba": lambda: encoded(with_alpha("RGBA"), "BMP"),
    "tiff": lambda: encoded(scene(), "TIFF"),
    "tiff-lzw": lambda: encoded(scene(), "TIFF", compression="tiff_lzw"),
    "tiff-deflate-p": lambda: encoded(scene().convert("P"), "TIFF", compression="tiff_deflate"),
    "tiff-p": lambda: encoded(scene().convert("P"), "TIFF"),
    "tiff-jpeg": lambda: encoded(scene(), "TIFF", compression="jpeg"),
    "tiff-g4": lambda: encoded(scene().convert("1"), "TIFF", compression="group4"),
    "tiff-rgba": lambda: encoded(with_alpha("RGBA"), "TIFF"),
    "tiff-la": lambda: encoded(with_alpha("LA"), "TIFF"),
    "tiff-cmyk": lambda: encoded(scene().convert("CMYK"), "TIFF"),
    "tiff-pages": lambda: encoded(scene(), "TIFF", save_all=True, append_images=[scene(seed=1)]),
}


def with_black():
    cyan, magenta, yellow, _ = scene().convert("CMYK").split()
    return Image.merge("CMYK", (cyan, magenta, yellow, scene(seed=1).convert("L")))


def with_alpha(mode):
    image = scene().convert(mode)
    image.putalpha(Image.fromarray(np.tile(np.linspace(0, 255, 90).astype(np.uint8), (60, 1))))
    return image


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("case", CASES)
def test_equals_pillows_plain_conversion(case, mode):
    data = CASES[case]()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = decode(data, mode=mode)
    assert type(image) is Image.Image
    assert image.mode == mode
    assert np.array_equal(np.asarray(image), plain(data, mode))


@pytest.mark.parametrize("case", ["jpeg-420", "png-rgba", "gif", "tiff-lzw", "webp"])
def test_content_decides_not_the_extension(case, tmp_path):
    path = tmp_path / "picture.doc"
    path.write_bytes(CASES[case]())
    for source in (path, str(path), path.read_bytes(), bytearray(path.read_bytes())):
        assert np.array_equal(np.asarray(decode(source)), plain(path.read_bytes()))


# --- deep pixels -------------------------------------------------------------------------------------------------

DEEP = np.array([[0, 255, 256, 300], [40000, 65535, 1000, 5]], np.uint16)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_16_bit_grey_keeps_its_high_byte_where_pillow_clips(kind, mode):
    data = encoded(Image.fromarray(DEEP), kind)
    assert np.array_equal(np.asarray(decode(data, mode="L")), DEEP >> 8)
    assert np.array_equal(np.asarray(decode(data, mode=mode)).reshape(2, 4, -1)[..., 0], DEEP >> 8)
    if kind == "PNG":
        assert plain(data, "L").max() == 255
        assert (plain(data, "L") == 255).sum() == 6  # what makes this rule necessary


def tiff_grey(bits, raw, endian="<", size=(4, 2)):
    """A baseline TIFF of one strip, written by hand (Pillow writes neither 12 bits nor big-endian here)."""
    tags = [(256, size[0]), (257, size[1]), (258, bits), (259, 1), (262, 1), (273, 8), (277, 1), (278, size[1])]
    tags.append((279, len(raw)))
    body = b"".join(struct.pack(f"{endian}HHIHH", tag, 3, 1, value, 0) for tag, value in tags)
    head = (b"II*\0" if endian == "<" else b"MM\0*") + struct.pack(f"{endian}I", 8 + len(raw))
    return head + raw + struct.pack(f"{endian}H", len(tags)) + body + struct.pack(f"{endian}I", 0)


def test_big_endian_16_bit_tiff():
    data = tiff_grey(16, DEEP.astype(">u2").tobytes(), ">")
    assert opened(data).mode == "I;16B"
    assert np.array_equal(np.asarray(decode(data, mode="L")), DEEP >> 8)


def test_12_bit_tiff():
    values = [0, 4095, 2048, 16, 15, 300, 4000, 1]
    bits = "".join(f"{v:012b}" for v in values)
    data = tiff_grey(12, bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)))
    assert np.asarray(decode(data, mode="L")).ravel().tolist() == [v >> 4 for v in values]


@pytest.mark.parametrize(("dtype", "word"), [(np.int32, "32-bit integer"), (np.float32, "floating-point")])
def test_pixels_without_a_white_level_are_refused(dtype, word):
    image = Image.fromarray(DEEP.astype(dtype))
    for source in (image, encoded(image, "TIFF")):
        with pytest.raises(ImageError, match=f"its {word} pixels have no fixed white level"):
            decode(source)


def test_a_colour_space_pillow_cannot_convert_is_refused():
    with pytest.raises(ImageError, match="mode LAB cannot be converted to L"):
        decode(encoded(Image.new("LAB", (4, 4)), "TIFF"), mode="L")


# --- orientation -------------------------------------------------------------------------------------------------


def oriented(kind, orientation, size=(60, 90), **options):
    exif = Image.Exif()
    exif[0x0112] = orientation
    if kind == "TIFF":
        return encoded(scene(*size), kind, tiffinfo={0x0112: orientation}, **options)
    return encoded(scene(*size), kind, exif=exif, **options)


FORMATS = [("JPEG", {}), ("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"})]


@pytest.mark.parametrize(("kind", "options"), FORMATS)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_all_orientations(kind, options, orientation):
    data = oriented(kind, orientation, **options)
    upright = np.asarray(ImageOps.exif_transpose(opened(data)).convert("RGB"))
    stored = plain(oriented(kind, 1, **options))
    assert np.array_equal(np.asarray(decode(data)), upright)
    assert np.array_equal(np.asarray(decode(data, exif=False)), stored)
    header = read_header(data)
    assert (header.width, header.height, header.orientation) == (90, 60, orientation)
    picture = decode_picture(data)
    assert (picture.width, picture.height) == picture.image.size == (upright.shape[1], upright.shape[0])


def test_the_orientations_are_really_different():
    assert len({np.asarray(decode(oriented("JPEG", k))).tobytes() for k in range(1, 9)}) == 8


def test_decoding_twice_does_not_turn_twice():
    data = oriented("JPEG", 6)
    once = decode(data)
    assert np.array_equal(np.asarray(decode(once)), np.asarray(once))
    unturned = decode(opened(data), exif=False)
    assert np.array_equal(np.asarray(decode(unturned)), np.asarray(unturned))


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_senseless_orientation_is_ignored(orientation):
    assert np.array_equal(np.asarray(decode(oriented("JPEG", orientation))), plain(oriented("JPEG", 1)))


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0", b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"]
)
def test_broken_exif_spoils_no_picture(exif):
    data = encoded(scene(), "JPEG")
    segment = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert np.array_equal(np.asarray(decode(data[:2] + segment + data[2:])), plain(data))


# --- in memory ---------------------------------------------------------------------------------------------------


def test_arrays():
    rgb = np.asarray(scene())
    assert np.array_equal(np.asarray(decode(rgb)), rgb)
    assert np.array_equal(np.asarray(decode(rgb[::2, ::-1])), rgb[::2, ::-1])
    grey = rgb[..., 0]
    assert np.array_equal(np.asarray(decode(grey)), np.stack([grey] * 3, -1))
    assert np.array_equal(np.asarray(decode(grey[..., None], mode="L")), grey)
    assert np.array_equal(np.asarray(decode(np.dstack([rgb, grey]))), rgb)


@pytest.mark.parametrize(
    ("array", "sentence"),
    [
        (np.zeros((4, 4, 3), np.float32), "holds float32"),
        (np.zeros((4, 4, 2), np.uint8), r"shape \(4, 4, 2\)"),
        (np.zeros((2, 4, 4, 3), np.uint8), r"shape \(2, 4, 4, 3\)"),
        (np.zeros(4, np.uint8), r"shape \(4,\)"),
        (np.zeros((0, 4, 3), np.uint8), "no pixels"),
        (None, "not an object of type NoneType"),
        (Image.new("RGB", (0, 3)), "no pixels"),
    ],
)
def test_odd_objects_are_refused(array, sentence):
    with pytest.raises(ImageError, match=sentence):
        decode(array)


def test_result_shares_nothing_with_its_source():
    array = np.zeros((4, 4), np.uint8)
    image = Image.fromarray(np.zeros((4, 4, 3), np.uint8))
    image.info["note"] = 1
    results = [decode(array, mode="L"), decode(image)]
    array[:] = 9
    image.putpixel((0, 0), (9, 9, 9))
    assert all(np.asarray(result).max() == 0 for result in results)
    assert image.info == {"note": 1}


def test_lazy_pillow_image_with_damage(tmp_path):
    path = tmp_path / "cut.png"
    path.write_bytes(CASES["png-rgb"]()[:2000])
    with Image.open(path) as image, pytest.raises(ImageError, match="the PNG picture is truncated or damaged"):
        decode(image)


def test_wrong_mode_is_a_usage_error():
    with pytest.raises(UsageError, match="must be 'RGB' or 'L', not 'rgb'; did you mean 'RGB'"):
        decode(scene(), mode="rgb")


# --- damage ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", [case for case in CASES if not case.endswith(("animated", "pages", "mpo"))])
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_truncated_is_an_error_or_the_same_picture(case):
    data = CASES[case]()
    whole = plain(data)
    cuts = sorted({*range(1, 40, 3), *range(40, len(data), max(1, len(data) // 40)), *range(len(data) - 12, len(data))})
    refused = 0
    for cut in cuts:
        try:
            assert np.array_equal(np.asarray(decode(data[:cut])), whole), f"cut at {cut} of {len(data)}"
        except ImageError as error:
            refused += 1
            assert "0x7" not in str(error)  # noqa: PT017 - no memory address in a sentence
            assert "\n" not in str(error)  # noqa: PT017
    assert refused >= 0.7 * len(cuts) if len(data) > 300 else refused


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_rows": 1}])
@pytest.mark.parametrize("short_side", [None, 40])
def test_truncated_jpeg_at_every_tenth(options, short_side):
    data = encoded(scene(300, 400), "JPEG", **options)
    for tenth in range(1, 10):
        with pytest.raises(ImageError, match="JPEG picture is truncated or damaged"):
            decode(data[: len(data) * tenth // 10], short_side=short_side)
        # as left by an interrupted download that had reserved its space
        with pytest.raises(ImageError, match="JPEG picture is truncated or damaged"):
            decode(data[: len(data) * tenth // 10].ljust(len(data), b"\0"), short_side=short_side)


@pytest.mark.parametrize("tail", [b"garbage" * 99, b"\0" * 50, b"\xff\xd8\xff", b"\xff\xd9\xff\xd9", None])
@pytest.mark.parametrize("options", [{}, {"progressive": True}])
def test_garbage_behind_a_jpeg_is_harmless(tail, options):
    data = encoded(scene(), "JPEG", **options)
    assert np.array_equal(np.asarray(decode(data + (tail or data))), plain(data))


def test_bytes_between_jpeg_segments_are_harmless():
    data = encoded(scene(), "JPEG")
    at = data.index(b"\xff\xdb")
    assert np.array_equal(np.asarray(decode(data[:at] + b"\0\0\0" + data[at:])), plain(data))
    end = data[:-2] + b"\0\0\0\0" + data[-2:]
    assert np.array_equal(np.asarray(decode(end)), plain(data))


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_jpeg_that_lost_its_middle_is_refused_where_pillow_paints_grey(mode):
    data = encoded(scene(300, 400).convert(mode), "JPEG")
    torn = data[: len(data) // 2] + data[-2:]
    assert not np.array_equal(plain(torn), plain(data))
    with pytest.raises(ImageError, match="premature end"):
        decode(torn)


def test_jpeg_with_two_frame_sizes_is_not_decoded_at_the_unchecked_one():
    data = encoded(scene(), "JPEG")
    at = data.index(b"\xff\xc0")
    second = (
        data[at : at + 5]
        + struct.pack(">HH", 20, 20)
        + data[at + 9 : at + 2 + struct.unpack(">H", data[at + 2 : at + 4])[0]]
    )
    with pytest.raises(ImageError):
        decode(data[:at] + data[at : at + len(second)] + second + data[at + len(second) :])


def test_jpeg_that_lost_a_restart_interval_is_refused():
    data = encoded(scene(300, 400), "JPEG", restart_marker_rows=1)
    torn = data[: data.index(b"\xff\xd2")] + data[data.index(b"\xff\xd3") :]
    with pytest.raises(ImageError, match="found marker 0xd3 instead of RST2"):
        decode(torn)


def test_jpeg_whose_size_is_read_differently_is_left_to_pillow(monkeypatch):
    data = encoded(scene(), "JPEG")
    monkeypatch.setattr(simplejpeg, "decode_jpeg_header", lambda data: (9000, 9000, "YCbCr", "420"))
    monkeypatch.setattr(simplejpeg, "decode_jpeg", None)  # its pixels would be beyond the size that was checked
    assert np.array_equal(np.asarray(decode(data)), plain(data))


def test_random_damage_never_escapes_as_another_error():
    rng = np.random.default_rng(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for case, make in CASES.items():
            data = make()
            for _ in range(12):
                broken = bytearray(data)
                for at in rng.integers(0, min(len(data), 400), 4):
                    broken[at] = rng.integers(256)
                with contextlib.suppress(ImageError):
                    assert decode(bytes(broken), limits=Limits(10**6, 10**6)).mode == "RGB", case


# --- refusals ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "the file is empty"),
        (b"hello, I am a text\n", "it is a text file; the accepted formats are JPEG, PNG, WebP, GIF, BMP and TIFF"),
        ("é".encode() * 400, "it is a text file"),
        (b"\0" * 2000, "its content is not a known image"),
        (b"8BPS" + b"\0" * 100, "it is a Photoshop document"),
        (b"%PDF-1.7 ...", "it is a PDF document"),
        (b"\0\0\0\x18ftypheic" + b"\0" * 50, "it is a HEIC, AVIF or video file"),
        (b"RIFF\0\0\0\0WEBP", "the WebP picture is truncated or damaged"),
        (b"\x89PNG\r\n\x1a\n", "the PNG picture is truncated or damaged"),
        (b"BM", "the BMP picture is truncated or damaged"),
        (b"II*\0", "the TIFF picture is truncated or damaged"),
        (b"\xff\xd8\xff", "the JPEG picture is truncated or damaged"),
        (b"GIF89a", "the GIF picture is truncated or damaged"),
    ],
)
def test_other_content_is_refused_with_a_sentence(content, sentence, tmp_path):
    path = tmp_path / "photo.jpg"
    path.write_bytes(content)
    for read in (decode, read_header):
        for source in (path, content):
            with pytest.raises(ImageError) as caught:
                read(source)
            assert sentence in str(caught.value)
            assert str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize("kind", ["ICO", "PPM", "TGA", "JPEG2000", "PCX"])
def test_formats_that_pillow_would_read_are_refused(kind):
    with pytest.raises(ImageError, match="the accepted formats are JPEG, PNG, WebP, GIF, BMP and TIFF"):
        decode(encoded(scene(), kind))


def test_paths_that_cannot_be_read(tmp_path):
    with pytest.raises(ImageError, match=r"^the file does not exist$"):
        decode(tmp_path / "none.jpg")
    with pytest.raises(ImageError, match=r"^it is a folder, not a file$"):
        decode(tmp_path)
    with pytest.raises(ImageError, match="null character"):
        decode("a\0b.jpg")
    with pytest.raises(ImageError, match=r"^the file cannot be read: "):
        decode(tmp_path / ("x" * 5000))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_refused_instead_of_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(ImageError, match=r"^it is not a regular file$"):
        decode(tmp_path / "pipe.jpg")


def test_a_file_without_permission(tmp_path, monkeypatch):
    path = tmp_path / "locked.jpg"
    path.write_bytes(b"x")

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.open", refuse)  # root may read everything
    with pytest.raises(ImageError, match=r"^the file may not be read: permission denied$"):
        decode(path)


# --- limits ------------------------------------------------------------------------------------------------------

BOMBS = {
    "png": png(30000, 30000, 8, 2, b"\0" * 1000),
    "png-grey": png(30000, 30000, 1, 0, b"\0" * 1000),
    "gif": b"GIF89a" + struct.pack("<HHBBB", 30000, 30000, 0xF7, 0, 0) + bytes(768)
    + b"," + struct.pack("<HHHHB", 0, 0, 30000, 30000, 0) + b"\x08\x01\0\0;",
    "bmp": b"BM" + struct.pack("<IHHI", 54, 0, 0, 54)
    + struct.pack("<IiiHHIIiiII", 40, 30000, 30000, 1, 24, 0, 0, 0, 0, 0, 0),
    "tiff": tiff_grey(8, b"\0" * 100, size=(30000, 30000)),
}  # fmt: skip


@pytest.mark.parametrize("bomb", BOMBS)
def test_bombs_are_refused_from_their_header(bomb):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for read in (decode, read_header):
            with pytest.raises(ImageError) as caught:
                read(BOMBS[bomb])
            expected = "the image has 900,000,000 pixels (30000×30000), the limit is 200,000,000"
            assert str(caught.value) == expected


def test_jpeg_bomb_is_refused_from_its_header():
    data = encoded(scene(), "JPEG")
    at = data.index(b"\xff\xc0") + 5
    with pytest.raises(ImageError, match="900,000,000 pixels"):
        decode(data[:at] + struct.pack(">HH", 30000, 30000) + data[at + 4 :])


@pytest.mark.parametrize("options", [{}, {"lossless": True}, {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\0"}])
def test_webp_size_is_known_before_pillow_opens_it(options, monkeypatch):
    data = encoded(scene(), "WEBP", **options)
    monkeypatch.setattr("taxonet.images.source._PLUGINS", {"WebP": None})
    with pytest.raises(ImageError, match=r"5,400 pixels \(90×60\), the limit is 5,399"):
        decode(data, limits=Limits(10**6, 5399))


def test_a_real_bomb_a_thousand_times_its_file():
    data = png(4000, 4000, 8, 0, b"\0" * (4001 * 4000))
    assert len(data) < 20_000
    with pytest.raises(ImageError, match="16,000,000 pixels"):
        decode(data, limits=Limits(2**20, 10**6))


@pytest.mark.parametrize("case", ["jpeg-420", "png-rgb", "webp", "gif", "bmp", "tiff", "tiff-p", "tiff-lzw"])
def test_pillows_global_limit_plays_no_part(case, monkeypatch):
    data = CASES[case]()
    whole = plain(data)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2699 if case == "webp" else 100)  # fails above twice this, 5400 here
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if case == "webp":
            with pytest.raises(ImageError, match="more pixels than Pillow decodes"):
                decode(data)
        else:
            assert np.array_equal(np.asarray(decode(data)), whole)
    assert Image.MAX_IMAGE_PIXELS in (2699, 100)


def test_limits_are_inclusive(tmp_path):
    data = encoded(scene(), "PNG")
    path = tmp_path / "a.png"
    path.write_bytes(data)
    for source in (data, path, scene(), np.asarray(scene())):
        assert decode(source, limits=Limits(len(data), 5400)).size == (90, 60)
        with pytest.raises(ImageError, match="the limit is 5,399"):
            decode(source, limits=Limits(len(data), 5399))
    for source in (data, path):
        with pytest.raises(ImageError, match=f"bytes, the limit is {len(data) - 1:,}"):
            decode(source, limits=Limits(len(data) - 1, 5400))


def test_default_limits_admit_a_200_mp_phone():
    assert DEFAULT_LIMITS.max_pixels >= 16320 * 12240
    header = read_header(png(16320, 12240, 8, 2, b""))
    assert (header.format, header.width, header.height, header.mode) == ("PNG", 16320, 12240, "RGB")


# --- scaled decoding ---------------------------------------------------------------------------------------------


def resized(picture, side):
    long = max(picture.width, picture.height) * side // min(picture.width, picture.height)
    size = (long, side) if picture.width > picture.height else (side, long)
    return np.asarray(picture.image.resize(size, Image.Resampling.BICUBIC, box=picture.box)).astype(int)


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("size", [(600, 800), (1203, 901), (613, 1397)])
@pytest.mark.parametrize("options", [{"quality": 90}, {"quality": 75, "progressive": True, "subsampling": 0}])
def test_scaled_decode_agrees_with_full_decode(size, options, mode):
    data = encoded(scene(*size), "JPEG", **options)
    full, scaled = decode_picture(data, mode=mode), decode_picture(data, mode=mode, short_side=64)
    assert SCALE_MARGIN * 64 <= min(scaled.image.size) < min(size) / 2
    assert (scaled.width, scaled.height) == full.image.size
    difference = np.abs(resized(scaled, 64) - resized(full, 64))
    assert difference.mean() < 1.0
    assert np.percentile(difference, 99) <= 5


@pytest.mark.parametrize("orientation", range(1, 9))
def test_scaled_decode_covers_the_same_picture_in_every_orientation(orientation):
    data = oriented("JPEG", orientation, (603, 805))  # neither side divides by 8: the last row and column are partial
    full, scaled = decode_picture(data), decode_picture(data, short_side=40)
    assert (scaled.width, scaled.height) == full.image.size
    assert max(scaled.image.size) < 400
    with_box = np.abs(resized(scaled, 40) - resized(full, 40)).mean()
    assert with_box < 1.0
    stored = decode_picture(data, short_side=40, exif=False)
    partial = np.zeros((stored.image.height, stored.image.width), np.uint8)
    partial[-1], partial[:, -1] = 1, 1
    turned = partial if orientation == 1 else np.asarray(Image.fromarray(partial).transpose(_TRANSPOSE[orientation]))
    left, upper, right, lower = scaled.box
    width, height = scaled.image.size
    cut = [left > 0, upper > 0, right < width, lower < height]
    assert cut == [edge.all() for edge in (turned[:, 0], turned[0], turned[:, -1], turned[-1])]
    assert (right - left, lower - upper) == (full.width / 4, full.height / 4)


def test_a_hint_never_enlarges_nor_touches_small_or_other_pictures():
    for data in (CASES["jpeg-420"](), encoded(scene(300, 400), "PNG"), CASES["jpeg-cmyk"]()):
        assert np.array_equal(np.asarray(decode(data, short_side=50)), plain(data))


# --- threads -----------------------------------------------------------------------------------------------------


def test_many_threads_get_what_one_gets(tmp_path):
    sources = []
    for case, make in CASES.items():
        path = tmp_path / case
        path.write_bytes(make())
        sources.append(path)
    alone = [np.asarray(decode(path)) for path in sources]
    barrier = threading.Barrier(8)

    def work(_):
        barrier.wait()
        return [np.asarray(decode(path)) for path in sources]

    with ThreadPoolExecutor(8) as pool:
        for together in pool.map(work, range(8)):
            assert all(np.array_equal(a, b) for a, b in zip(alone, together, strict=True))
