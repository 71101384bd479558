"""`check`: what is planted is found, under the right name, and nothing else is."""

import shutil

import numpy as np
import pytest
from PIL import Image, ImageFilter
from tests.checking.conftest import PHOTOS

import taxonet
from taxonet.cli.app import main
from taxonet.errors import DataError


def tree(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def as_splits(photos, root):
    for number, split in enumerate(("train", "val", "test")):
        for name in PHOTOS:
            (root / split / name).mkdir(parents=True)
            for file in range(4 * number, 4 * number + 4):
                shutil.copy(photos / name / f"{file}.png", root / split / name)
    return root


def test_a_clean_set_is_clean(photos, found):
    assert found(photos) == {}


def test_a_check_changes_nothing(photos, tmp_path):
    before = tree(photos)
    report = taxonet.check(photos, labels=False)
    report.write_exclusions(tmp_path / "list.txt")
    report.write_html(tmp_path / "page.html")
    assert tree(photos) == before


def test_files_that_cannot_be_read(photos, found, huge_png):
    whole = (photos / "cat" / "0.png").read_bytes()
    (photos / "cat" / "cut.png").write_bytes(whole[: len(whole) // 2])
    (photos / "cat" / "zero.jpg").touch()
    (photos / "cat" / "text.jpg").write_text("not a picture")
    shutil.copy(huge_png, photos / "cat" / "bomb.png")
    assert {path for path, _ in found(photos)["broken"]} == {
        "cat/cut.png",
        "cat/zero.jpg",
        "cat/text.jpg",
        "cat/bomb.png",
    }


def test_what_is_not_read_is_told_with_its_content(photos):
    shutil.copy(photos / "cat" / "0.png", photos / "cat" / "photo.dat")
    shutil.copy(photos / "cat" / "1.png", photos / "lost.png")
    reasons = {issue.path: issue.reason for issue in taxonet.check(photos, labels=False).issues}
    assert reasons == {
        "cat/photo.dat": "'.dat' is not a picture's extension; its content is PNG",
        "lost.png": "it is in no class folder; its content is PNG",
    }


def test_the_extension_of_another_format(photos, found):
    Image.open(photos / "cat" / "3.png").convert("RGB").save(photos / "cat" / "3.jpg", "JPEG", quality=95)
    (photos / "cat" / "3.jpg").rename(photos / "cat" / "3.png")
    assert found(photos) == {"extension": [("cat/3.png", ())]}


def test_exact_copies_in_one_class(photos, found):
    shutil.copy(photos / "cat" / "3.png", photos / "cat" / "zz.png")
    assert found(photos) == {"duplicate": [("cat/zz.png", ("cat/3.png",))]}


def test_the_same_pixels_in_another_format(photos, found):
    Image.open(photos / "cat" / "3.png").save(photos / "cat" / "zz.bmp")
    report = taxonet.check(photos, labels=False)
    assert [(i.kind, i.path, i.also) for i in report.issues] == [("duplicate", "cat/zz.bmp", ("cat/3.png",))]
    assert "pixels" in report.issues[0].reason


@pytest.mark.parametrize("quality", [30, 75])
def test_recompressed_and_smaller_is_a_near_duplicate(photos, found, quality):
    image = Image.open(photos / "cat" / "3.png")
    image.resize((60, 45), Image.Resampling.BICUBIC).save(photos / "cat" / "zz.jpg", quality=quality)
    assert found(photos) == {"near_duplicate": [("cat/zz.jpg", ("cat/3.png",))]}


def test_a_grey_copy_is_a_near_duplicate(photos, found):
    Image.open(photos / "cat" / "3.png").convert("L").save(photos / "cat" / "zz.png")
    assert found(photos)["near_duplicate"] == [("cat/zz.png", ("cat/3.png",))]


def test_the_same_shape_in_another_colour_is_no_duplicate(photos, found):
    red, green, blue = Image.open(photos / "cat" / "3.png").split()
    Image.merge("RGB", (blue, green, red)).save(photos / "cat" / "zz.png")
    assert "near_duplicate" not in found(photos)


def test_one_photo_in_two_classes(photos, found):
    shutil.copy(photos / "cat" / "3.png", photos / "coffee" / "zz.png")
    assert found(photos) == {"two_classes": [("cat/3.png", ("coffee/zz.png",))]}


def test_a_photo_in_two_splits_is_told_of_the_training_one(photos, tmp_path, found):
    root = as_splits(photos, tmp_path / "splits")
    shutil.copy(root / "test" / "cat" / "8.png", root / "train" / "cat" / "copy.png")
    shutil.copy(root / "val" / "cat" / "4.png", root / "train" / "cat" / "other.png")
    assert found(root)["duplicate_across_splits"] == [
        ("train/cat/copy.png", ("test/cat/8.png",)),
        ("train/cat/other.png", ("val/cat/4.png",)),
    ]


def test_a_near_copy_of_a_copied_photo_leaks_too(photos, tmp_path, found):
    """Leaving the exact copy out of training would leave its near copy behind."""
    root = as_splits(photos, tmp_path / "splits")
    shutil.copy(root / "val" / "cat" / "4.png", root / "train" / "cat" / "exact.png")
    Image.open(root / "val" / "cat" / "4.png").save(root / "train" / "cat" / "near.jpg", quality=60)
    kinds = found(root)
    assert kinds["duplicate_across_splits"] == [("train/cat/exact.png", ("val/cat/4.png",))]
    assert kinds["near_duplicate_across_splits"] == [("train/cat/near.jpg", ("val/cat/4.png",))]


def test_splits_of_a_table(photos, tmp_path, found):
    rows = ["path,label,split"]
    rows += [f"photos/{name}/{n}.png,{name},{'train' if n < 11 else 'val'}" for name in PHOTOS for n in range(12)]
    shutil.copy(photos / "cat" / "11.png", photos / "cat" / "0.png")
    (tmp_path / "table.csv").write_text("\n".join(rows))
    assert found(tmp_path / "table.csv") == {"duplicate_across_splits": [("photos/cat/0.png", ("photos/cat/11.png",))]}


def test_odd_pictures(photos, found):
    cat = photos / "cat"
    image = Image.open(cat / "3.png")
    Image.new("RGB", (72, 96), (90, 90, 90)).save(cat / "blank.png")
    Image.open(cat / "4.png").point(lambda level: level // 6).save(cat / "dark.png")
    Image.open(cat / "5.png").filter(ImageFilter.GaussianBlur(4)).save(cat / "blurred.png")
    Image.open(cat / "6.png").crop((0, 20, 96, 44)).save(cat / "long.png")
    image.crop((10, 10, 50, 40)).resize((16, 12)).save(cat / "tiny.png")
    for name in ("4.png", "5.png"):  # their odd copies are to be found by themselves
        (cat / name).unlink()
    kinds = found(photos)
    assert {kind: [path for path, _ in rows] for kind, rows in kinds.items()} == {
        "blank": ["cat/blank.png"],
        "dark": ["cat/dark.png"],
        "blurred": ["cat/blurred.png"],
        "tiny": ["cat/tiny.png"],
        "aspect": ["cat/long.png"],
    }


def test_notes_fail_only_when_strict(photos):
    image = Image.open(photos / "cat" / "3.png")
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(photos / "cat" / "3.png", exif=exif)
    report = taxonet.check(photos, labels=False)
    assert report.counts == {"rotated": 1}
    assert not report.failed()
    assert report.failed(strict=True)


def test_blank_pictures_are_blank_and_no_duplicates(photos, found):
    for number, level in enumerate((10, 130, 250, 250)):
        Image.new("RGB", (72, 96), (level, level, level)).save(photos / "cat" / f"blank{number}.png")
    shutil.copy(photos / "cat" / "blank0.png", photos / "coffee" / "blank.png")
    assert set(found(photos)) == {"blank"}


def test_a_class_with_few_pictures_and_one_without(photos, tmp_path, found):
    root = as_splits(photos, tmp_path / "splits")
    shutil.copytree(root / "val" / "cat", root / "val" / "lion")
    shutil.rmtree(root / "val" / "cat")
    kinds = found(root)
    assert kinds["class_not_trained"] == [("lion", ())]
    assert kinds["class_not_measured"] == [("cat", ())]
    assert kinds["few_pictures"] == [(name, ()) for name in sorted(PHOTOS)]


def test_a_set_in_which_nothing_can_be_read(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.png").touch()
    report = taxonet.check(tmp_path)
    assert report.counts["broken"] == 2
    assert report.labels["checked"] is False


def test_data_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        taxonet.check(tmp_path / "nothing")


def test_the_json_form(photos):
    shutil.copy(photos / "cat" / "3.png", photos / "cat" / "zz.png")
    form = taxonet.check(photos, labels=False).as_dict()
    assert form["n"] == 37
    assert form["classes"] == {"astronaut": 12, "cat": 13, "coffee": 12}
    assert form["counts"] == {"duplicate": 1}
    assert form["findings"] == [
        {
            "kind": "duplicate",
            "severity": "warning",
            "path": "cat/zz.png",
            "also": ("cat/3.png",),
            "reason": "the same file",
            "suggestion": "leave it out: it counts one photo twice",
            "label": "cat",
            "split": "all",
            "answer": None,
        }
    ]


def test_the_page_shows_and_needs_nothing_else(photos, tmp_path):
    shutil.copy(photos / "cat" / "3.png", photos / "cat" / "<b>zz.png")
    taxonet.check(photos, labels=False).write_html(tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "exact duplicate" in page
    assert "&lt;b&gt;zz.png" in page
    assert "<b>zz" not in page
    assert page.count("data:image/jpeg;base64,") == 2
    assert "http" not in page


def test_smoothness_rises_with_blur(photos):
    from taxonet.checking.looks import smoothness

    luma = Image.open(photos / "cat" / "3.png").convert("L")
    values = [smoothness(luma.filter(ImageFilter.GaussianBlur(sigma))) for sigma in (0, 1, 2, 4)]
    assert values == sorted(values)
    assert smoothness(Image.new("L", (30, 30), 7)) == 1.0


def test_files_of_one_size_are_no_copies(photos, found):
    pixels = np.random.default_rng(0).integers(0, 255, (2, 40, 40, 3), dtype=np.uint8)
    for name, one in zip("ab", pixels, strict=True):
        Image.fromarray(one).save(photos / "cat" / f"{name}.bmp")
    assert not {"duplicate", "near_duplicate"} & set(found(photos))


def test_a_set_of_one_class_is_an_error_as_it_is_for_training(photos, tmp_path, found):
    shutil.copytree(photos / "cat", tmp_path / "one" / "cat")
    assert found(tmp_path / "one")["one_class"] == [("cat", ())]
    assert main(["check", str(tmp_path / "one"), "--no-labels"]) == 1
