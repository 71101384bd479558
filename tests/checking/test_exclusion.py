"""The list: written by check, changed by hand, read by train."""

import shutil

import pytest
from PIL import Image

import taxonet
from taxonet.checking.exclusion import Exclusions, read_exclusions, write_exclusion_list
from taxonet.data import read_data
from taxonet.errors import UsageError

ODD = ["a/plain.png", "a/#hash.png", "#first/b.png", '"quoted".png', "a/line\nbreak.png", " space .png", "a/\udcff.png"]


def test_any_name_survives(tmp_path):
    write_exclusion_list(tmp_path / "list.txt", ODD)
    assert list(read_exclusions(tmp_path / "list.txt")) == ODD


def test_a_list_by_hand(tmp_path):
    (tmp_path / "list.txt").write_text("\ufeff# a remark\r\n\r\ncat/1.png\r\n./cat//2.png\n#cat/3.png\ncat/1.png\n")
    assert read_exclusions(tmp_path / "list.txt") == ("cat/1.png", "cat/2.png")


def test_what_needs_eyes_is_a_remark(photos, tmp_path):
    shutil.copy(photos / "cat" / "3.png", photos / "cat" / "copy.png")
    Image.open(photos / "cat" / "5.png").save(photos / "cat" / "near.jpg", quality=50)
    (photos / "cat" / "empty.png").touch()
    count = taxonet.check(photos, labels=False).write_exclusions(tmp_path / "list.txt")
    assert set(read_exclusions(tmp_path / "list.txt")) == {"cat/copy.png", "cat/empty.png"}
    assert count == 2
    assert "\n#cat/near.jpg\n" in (tmp_path / "list.txt").read_text()


def test_a_photo_in_two_classes_is_left_out_of_both(photos, tmp_path):
    shutil.copy(photos / "cat" / "3.png", photos / "coffee" / "copy.png")
    taxonet.check(photos, labels=False).write_exclusions(tmp_path / "list.txt")
    assert set(read_exclusions(tmp_path / "list.txt")) == {"cat/3.png", "coffee/copy.png"}


def test_a_list_leaves_the_set_clean(photos, tmp_path):
    for n in range(3):
        shutil.copy(photos / "cat" / f"{n}.png", photos / "cat" / f"copy{n}.png")
        (photos / "coffee" / f"empty{n}.png").touch()
    taxonet.check(photos, labels=False).write_exclusions(tmp_path / "list.txt")
    for name in read_exclusions(tmp_path / "list.txt"):
        (photos / name).unlink()
    assert taxonet.check(photos, labels=False).issues == ()


def test_entries_that_the_data_lacks_are_named_with_the_nearest(photos):
    samples, root = read_data(photos).samples, photos
    listed = Exclusions("list.txt", ("cat/1.png", "cat/12.png", "cats/2.png"))
    stay, leave = listed.split(samples, root)
    assert ([s.path.name for s in leave], len(stay)) == (["1.png"], 35)
    assert listed.unknown(samples, root) == [
        ("cat/12.png", "; did you mean 'cat/2.png'?"),
        ("cats/2.png", "; did you mean 'cat/2.png'?"),
    ]


def test_a_list_of_other_data_is_refused(photos):
    with pytest.raises(UsageError, match=r"list.txt names no picture of .*count from there"):
        Exclusions("list.txt", ("photos/cat/1.png",)).unknown(read_data(photos).samples, photos)


def test_a_list_that_is_not_there(tmp_path):
    with pytest.raises(UsageError, match="cannot be read"):
        read_exclusions(tmp_path / "none.txt")


def test_a_picture_that_is_left_out_already_is_not_named_again(photos, tmp_path):
    name = sorted(path.name for path in (photos / "cat").iterdir())[0]
    shutil.copy(photos / "cat" / name, photos / "cat" / "copy.png")
    shutil.copy(photos / "cat" / name, photos / "coffee" / "copy.png")
    taxonet.check(photos, labels=False).write_exclusions(tmp_path / "list.txt")
    text = (tmp_path / "list.txt").read_text()
    for picture in (f"cat/{name}", "cat/copy.png", "coffee/copy.png"):
        assert [line for line in text.splitlines() if line.lstrip("#") == picture] == [picture]
    assert "of them stand above" in text
