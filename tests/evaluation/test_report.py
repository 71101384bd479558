"""The report of a run: one file that loads nothing, shows the figures and the mistakes, and escapes every name."""

import base64
import html.parser
import io
import re
import shutil
from dataclasses import asdict, replace

import numpy as np
import pytest
from PIL import Image

from taxonet.data import Finding, Sample
from taxonet.evaluation import Evaluation, Outcome, Scores, calibrate, evaluate, fit_calibration, measure
from taxonet.evaluation.calibration import softened
from taxonet.evaluation.evaluate import summary
from taxonet.evaluation.plots import COLOURS
from taxonet.evaluation.report import TrainingReport, confusion, thumbnail, worst_mistakes, write_report
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


@pytest.fixture
def evaluated(small_bundle, fill, paint, tmp_path, broken_jpeg):
    """A report's page of an evaluation with everything in it, and what was evaluated."""
    photos = fill(tmp_path / "photos", red=8, green=8, blue=8)
    for i in range(6):
        paint(photos / "red" / f"<wrong>{i}.png", "blue", seed=30 + i)
    shutil.copy(broken_jpeg, photos / "blue" / "broken.jpg")
    bundle = shutil.copy(small_bundle, tmp_path / "model.safetensors")
    calibrate(bundle, photos, target_coverage=0.7)
    page = tmp_path / "page.html"
    found = evaluate(bundle, photos, html=page, tta="flip", robustness_pictures=4)
    return found, page.read_text("utf-8")


def test_the_page_of_an_evaluation_has_every_part_and_loads_nothing(evaluated):
    found, source = evaluated
    page = Page(source)
    text = " ".join(page.text.split())
    for heading in ("Test-time augmentation", "Calibration", "“None of these”", "Robustness", "Classes", "Confusion"):
        assert heading in text
    for tag, attributes in page.tags:
        assert tag not in {"script", "link", "iframe", "object", "embed", "base"}
        assert attributes.get("src", "data:").startswith("data:")
    low, high = (f"{100 * value:.1f} %" for value in found.metrics.top1_ci)
    assert f"95 % interval {low} to {high}" in text
    assert f"The bundle’s threshold is {found.threshold:.3f}" in text
    assert "4 of 30 pictures" in text
    assert "broken.jpg" in text
    assert "<wrong>" not in source
    assert "&lt;wrong&gt;0.png" in source
    assert "prefers-color-scheme: dark" in source
    assert source.count("severity 1") >= 2


def test_the_page_shows_a_picture_of_every_corruption_and_severity(evaluated):
    pictures = re.findall(r'<img src="data:image/jpeg;base64,[^"]+" alt="(\w+), severity (\d)"', evaluated[1])
    assert len(set(pictures)) == len(pictures) == 21


def test_plots_take_the_colours_of_the_page(evaluated):
    for drawing in re.findall(r"<svg.*?</svg>", evaluated[1], re.DOTALL):
        assert "var(--ink)" in drawing
        assert not any(colour in drawing for colour in COLOURS)
        assert not re.search(r"(fill|stroke): #(000000|ffffff)", drawing)


def test_names_in_any_script_are_text_of_the_page(report, tmp_path, pictures):
    names = ("猫", "犬", "қаз")
    found = evaluation_of(pictures, names, [0, 0, 1, 2], [0.9] * 4, [0, 1, 1, 0])
    source = written(tmp_path / "report.html", replace(report, validation=found))
    table = source[source.index('<table class="confusion">') :].partition("</table>")[0]
    assert re.findall(r"<th><span>(.*?)</span></th>", table) == list(names)
    rows = [re.findall(r"<td[^>]*>(\d*)</td>", row) for row in table.split("<tr>")[2:]]
    assert rows == [["1", "", "1"], ["1", "1", ""], ["", "", ""]]  # row: true class, column: answer


def test_the_confusion_of_many_classes_names_those_that_occur_and_lists_the_pairs(pictures):
    classes = tuple(f"class {i}" for i in range(200))
    few = confusion(evaluation_of(pictures, classes, [0, 7, 7, 3], [0.9] * 4, [0, 1, 1, 199]))
    assert (list(few.columns), few.left_out, few.drawing) == (
        ["class 0", "class 1", "class 3", "class 7", "class 199"],
        195,
        "",
    )
    assert few.frequent == [("class 1", "class 7", 2, 1.0), ("class 199", "class 3", 1, 1.0)]
    every = list(range(200))
    many = confusion(evaluation_of(pictures * 50, classes, every, [0.9] * 200, every))
    assert many.drawing.startswith("<svg")
    assert (many.rows, many.frequent) == ((), [])


def test_the_page_of_a_run_shows_calibration_before_and_after(report, tmp_path, pictures, colour_classifier):
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 3, 60)
    logits = (4 * rng.normal(size=(60, 3)) + 4 * np.eye(3)[targets]).astype(np.float32)
    scores = Scores(softened(logits, 1.0), logits, targets, 1.0)
    samples = [Sample(pictures[i % 4], colour_classifier.classes[label]) for i, label in enumerate(targets)]
    fitted = fit_calibration(logits, targets)
    run = replace(report, validation=summary(colour_classifier, scores, samples, ()), calibration=fitted)
    text = " ".join(Page(written(tmp_path / "report.html", run)).text.split())
    assert f"The bundle’s temperature is {fitted.temperature:.3g}, fitted on these 60 pictures" in text
    assert "cross-fitted" in text
    assert "precision 90 %" in text or "coverage 90 %" in text
