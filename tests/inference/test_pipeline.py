"""The road from inputs to logits: order, bounds, errors at their place, and threads that stop."""

import itertools
import os
import socket
import threading

import numpy as np
import pytest

from taxonet.errors import ImageError
from taxonet.inference import Classifier
from taxonet.inference.pipeline import AHEAD, LEAST_SHARE, Road

STREAMS = [1, 2, 5]


def number(item):
    """An item's picture: one pixel that holds its number."""
    if item % 10 == 7:
        raise ImageError(f"{item} is broken")
    return np.array([[[[item % 251, item // 251 % 251, 0]]]], np.uint8)


def road(streams, read=number, run=None, batch=4, **options):
    return Road(
        read, run or (lambda pixels: pixels.reshape(len(pixels), 3).astype(np.float32)), streams, batch, **options
    )


def answers(found):
    return [one if isinstance(one, str) else int(one[0, 0] + 251 * one[0, 1]) for _, one in found]


@pytest.mark.parametrize("streams", STREAMS)
@pytest.mark.parametrize("count", [0, 1, 2, 3, 7, 8, 100, 333])
@pytest.mark.parametrize("overlap", [False, True])
def test_every_item_gets_its_own_answer_in_order(streams, count, overlap):
    found = list(road(streams, overlap=overlap).answer(iter(range(count))))
    assert [item for item, _ in found] == list(range(count))
    assert answers(found) == [f"{i} is broken" if i % 10 == 7 else i for i in range(count)]


@pytest.mark.parametrize("streams", STREAMS)
@pytest.mark.parametrize("skip", [0, 1, 3, 8, 40, 99, 100])
def test_what_is_skipped_changes_no_batch_of_the_rest(streams, skip):
    """Each answer holds the first and the last picture of its batch: the batches are those of the whole run."""

    def run(pixels):
        edges = np.concatenate([pixels[0, 0, 0, :1], pixels[-1, 0, 0, :1]])
        return np.concatenate([pixels[:, 0, 0, :1], np.tile(edges, (len(pixels), 1))], axis=1).astype(np.float32)

    def told(skip):
        found = road(streams, run=run).answer(range(100), skip)
        return [(item, one if isinstance(one, str) else one.tolist()) for item, one in found]

    assert told(skip) == told(0)[skip:]


@pytest.mark.parametrize("streams", [1, 2, 4])
@pytest.mark.parametrize("rows", [1, 3])
def test_inputs_without_end_are_taken_as_they_are_answered(streams, rows):
    taken, most, batch = itertools.count(), 0, 4
    last = 0

    def items():
        nonlocal last
        while True:
            last = next(taken)
            yield last

    same = np.zeros((rows, 1, 1, 3), np.uint8)
    found = road(streams, lambda _: same, batch=batch, rows=rows).answer(items())
    for place, (item, _) in enumerate(itertools.islice(found, 20_000)):
        assert item == place
        most = max(most, last - place)
    found.close()
    assert most <= (AHEAD + 1) * streams * (LEAST_SHARE + batch)


def test_the_engine_is_called_by_as_many_threads_as_it_has_streams():
    together = threading.Barrier(3)

    def run(pixels):
        together.wait(30)  # passes when three calls are under way
        return np.zeros((len(pixels), 3), np.float32)

    assert len(list(road(3, lambda _: np.zeros((1, 1, 1, 3), np.uint8), run).answer(range(3 * 24)))) == 72


def test_one_input_starts_no_thread():
    threads = set()

    def read(item):
        threads.add(threading.current_thread())
        return number(item)

    assert answers(road(4, read).answer([5])) == [5]
    assert threads == {threading.current_thread()}


@pytest.mark.parametrize("streams", STREAMS)
def test_an_error_of_the_engine_is_raised_and_is_no_picture_s(streams):
    def run(pixels):
        raise ImageError("the engine must not say this")

    with pytest.raises(ImageError, match="the engine must not say this"):
        list(road(streams, run=run).answer(range(50)))
    with pytest.raises(ZeroDivisionError):  # a defect of the reading is no picture's either
        list(road(streams, lambda item: number(item + 0 // (item - 20))).answer(range(50)))


@pytest.mark.parametrize("streams", STREAMS)
def test_closing_stops_the_threads(streams):
    before = set(threading.enumerate())
    found = road(streams).answer(itertools.count())
    assert next(found)[0] == 0
    found.close()
    for thread in set(threading.enumerate()) - before:
        thread.join(30)
        assert not thread.is_alive()


def test_a_thread_in_the_midst_of_its_share_stops_at_the_next_picture():
    reached, may_go_on, read_after = threading.Event(), threading.Event(), []

    def read(item):
        if item >= 16:  # the shares after those of the answers below
            if reached.is_set():
                read_after.append(item)
            reached.set()
            assert may_go_on.wait(30)
        return np.zeros((1, 1, 1, 3), np.uint8)

    before = set(threading.enumerate())
    found = road(2, read).answer(itertools.count())
    assert next(found)[0] == 0
    assert reached.wait(30)
    found.close()
    may_go_on.set()
    for thread in set(threading.enumerate()) - before:
        thread.join(30)
    assert len(read_after) <= 1  # the other thread may have been at a picture too


def test_what_is_no_file_costs_only_itself(colour_classifier, paint, tmp_path, broken_jpeg):
    good = [paint(tmp_path / f"{i}.png", colour, seed=i) for i, colour in enumerate(["red", "green", "blue"] * 8)]
    os.mkfifo(tmp_path / "pipe.jpg")
    server = socket.socket(socket.AF_UNIX)
    server.bind(os.path.relpath(tmp_path / "socket.jpg"))
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    odd = ["pipe.jpg", "socket.jpg", "loop.jpg", "gone.jpg", "."]
    inputs = [item for pair in itertools.zip_longest(good, [tmp_path / name for name in odd]) for item in pair if item]
    found = colour_classifier.predict([*inputs, "/dev/zero", broken_jpeg], top=1)
    server.close()
    assert [answer.label for answer in found if not answer.error] == ["red", "green", "blue"] * 8
    errors = [answer.error for answer in found if answer.error]
    assert errors[:2] == ["it is not a regular file"] * 2
    assert errors[2].startswith("the file cannot be read: ")  # too many levels of links
    assert errors[3:6] == ["the file does not exist", "it is a folder, not a file", "it is not a regular file"]


def test_a_classifier_of_many_streams_answers_as_one_of_one(colour_classifier, paint, tmp_path):
    class Streams:
        name, streams = "many", 3
        run = staticmethod(colour_classifier.engine.run)

    paths = [paint(tmp_path / f"{i}.png", ("red", "green", "blue")[i % 3], seed=i) for i in range(40)]
    many = Classifier(colour_classifier.info, Streams())
    np.testing.assert_allclose(many.predict_proba(paths), colour_classifier.predict_proba(paths), atol=1e-5)
    assert list(many.predict_each(paths, skip=13)) == many.predict(paths)[13:]
