"""The report of a run: one file that loads nothing, shows the figures and the mistakes, and escapes every name."""

import base64
import html.parser
import io
import re
from dataclasses import asdict, replace

import numpy as np
import pytest
from PIL import Image

from taxonet.data import Finding, Sample
from taxonet.evaluation import Evaluation, Outcome, measure
from taxonet.evaluation.report import TrainingReport, thumbnail, worst_mistakes, write_report
from taxonet.training.recipe import Recipe

NASTY = ("<b>&\"'", "--><script>alert(1)</script>", "a_$x_$")


class Page(html.parser.HTMLParser):
    """The tags of a page with their attributes, and its text."""

    def __init__(self, source):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(source)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data


@pytest.fixture
def pictures(tmp_path, paint):
    return [paint(tmp_path / "pictures" / f"{i}.png", "red", seed=i, size=(90, 300)) for i in range(4)]


def evaluation_of(pictures, classes, answers, probabilities, truths):
    table = np.full((len(answers), len(classes)), 0.0)
    for row, (answer, probability) in enumerate(zip(answers, probabilities, strict=True)):
        table[row] = (1 - probability) / (len(classes) - 1)
        table[row, answer] = probability
    outcomes = tuple(
        Outcome(Sample(path, classes[truth]), classes[answer], probability)
        for path, truth, answer, probability in zip(pictures, truths, answers, probabilities, strict=True)
    )
    return Evaluation(measure(table, truths, classes), (), outcomes)


@pytest.fixture
def report(pictures):
    validation = evaluation_of(
        pictures, NASTY, answers=[0, 0, 1, 0], probabilities=[0.9, 0.6, 0.8, 0.7], truths=[0, 1, 0, 0]
    )
    log = [
        {"epoch": e, "train_loss": 1 / e, "val_loss": 1.2 / e, "train_top1": 0.3 * e, "val_top1": 0.2 * e}
        for e in (1, 2)
    ]
    return TrainingReport(
        model="densenet_bc_22_12",
        source="photos <of> mine",
        command="taxonet train 'photos <of> mine' --out run",
        recipe=asdict(Recipe()),
        preprocessing="exif | rgb | resize(32) | center_crop(32) | normalize(cifar10)",
        log=log,
        counts={"training": 20, "validation": 4, "test": 0},
        origin="made here",
        validation=validation,
        test=None,
        findings=(Finding("photos/<odd>.jpg", "the file is empty"),),
        seconds=90.0,
    )


def written(path, report):
    write_report(path, report)
    return path.read_text("utf-8")


def test_the_report_loads_nothing(report, tmp_path):
    source = written(tmp_path / "report.html", report)
    page = Page(source)
    for tag, attributes in page.tags:
        assert tag not in {"script", "link", "iframe", "object", "embed", "base"}
        for name, value in attributes.items():
            if name in {"src", "href", "xlink:href", "data", "action", "srcset", "poster"}:
                assert value.startswith(("data:", "#"))
            assert not name.startswith("on")
    assert not re.search(r"@import|url\(\s*['\"]?(?!#)", source)
    assert "<script" not in source


def test_the_report_shows_what_was_found(report, tmp_path):
    text = Page(written(tmp_path / "report.html", report)).text
    assert "densenet_bc_22_12" in text
    assert "50.0 %" in text  # two of four
    assert "15.0 % to 85.0 %" in " ".join(text.split())  # Wilson's interval of them
    assert "photos/<odd>.jpg" in text
    assert "the file is empty" in text
    assert "taxonet train 'photos <of> mine' --out run" in text
    assert "1.5 minutes" in text
    for name, value in asdict(Recipe()).items():
        assert name in text
        assert isinstance(value, tuple) or str(value) in text


def test_class_names_are_text(report, tmp_path):
    source = written(tmp_path / "report.html", report)
    text = Page(source).text
    assert all(name in text for name in NASTY)
    assert "<b>&\"'" not in source
    assert "&lt;b&gt;&amp;" in source


def test_mistakes_are_shown_the_surest_first(report, tmp_path, pictures):
    source = written(tmp_path / "report.html", report)
    assert [outcome.sample.path for outcome in worst_mistakes(report.validation.outcomes)] == [pictures[2], pictures[1]]
    shown = re.findall(r'<img src="data:image/jpeg;base64,([^"]+)"', source)
    assert len(shown) == 2
    for data in shown:
        with Image.open(io.BytesIO(base64.b64decode(data))) as image:
            assert (image.format, image.size) == ("JPEG", (160, 48))
    assert re.findall(r"<small>([^<]*)</small>", source) == ["2.png", "1.png"]
    assert "The 2 surest of 2 wrong answers" in source


def test_a_perfect_run_has_no_mistakes(report, tmp_path, pictures):
    perfect = evaluation_of(pictures, ("a", "b"), [0, 1, 0, 1], [0.9] * 4, [0, 1, 0, 1])
    source = written(tmp_path / "report.html", replace(report, validation=perfect, findings=()))
    assert "There are none." in source
    assert "<img" not in source
    assert "Every file could be used." in source


def test_the_test_split_is_shown_where_there_is_one(report, tmp_path, pictures):
    test = evaluation_of(pictures, NASTY, [0] * 4, [0.9] * 4, [0] * 4)
    text = " ".join(Page(written(tmp_path / "report.html", replace(report, test=test))).text.split())
    assert "100.0 %test top-1" in text
    assert "50.0 %validation top-1" in text
    assert "Classes (test)" in text


def test_a_class_without_pictures_has_a_dash(report, tmp_path):
    source = written(tmp_path / "report.html", report)
    (row,) = [line for line in source.splitlines() if line.startswith("<tr><td>a_$x_$")]
    assert re.findall(r"<td>([^<]*)</td>", row)[1:] == ["0", "–", "–", "–"]


def test_many_classes(report, tmp_path, pictures):
    classes = tuple(f"class {i}" for i in range(70))
    many = evaluation_of(pictures, classes, [0, 1, 2, 3], [0.9] * 4, [0, 1, 2, 69])
    assert "class 69" in Page(written(tmp_path / "report.html", replace(report, validation=many))).text


def test_a_file_name_that_is_no_text(report, tmp_path):
    found = replace(report, findings=(Finding("caf\udce9.jpg", "the file is empty"),))
    assert r"caf\udce9.jpg" in written(tmp_path / "report.html", found)


def test_a_picture_that_has_gone_is_left_out(report, tmp_path, pictures):
    pictures[2].unlink()
    source = written(tmp_path / "report.html", report)
    assert source.count("<img") == 1
    assert source.count("<figcaption>") == 2


@pytest.mark.parametrize("size", [(400, 300), (1, 900), (20, 20)])
def test_thumbnails(tmp_path, paint, size):
    picture = thumbnail(paint(tmp_path / "a.png", size=size))
    with Image.open(io.BytesIO(base64.b64decode(picture.partition(",")[2]))) as image:
        assert max(image.size) == min(160, max(size))
    assert thumbnail(tmp_path / "gone.png") == ""
