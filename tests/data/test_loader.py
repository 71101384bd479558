"""Reading ahead: results in order, bounded, with each exception at its place."""

import itertools
import threading

import pytest

from taxonet.data import read_ahead


def test_results_come_in_the_order_of_the_items():
    first_may_end = threading.Event()

    def work(item):
        if item == 0:
            assert first_may_end.wait(30)  # the first ends last
        elif item == 3:
            first_may_end.set()
        return item * item

    assert list(read_ahead(work, range(10), workers=4, ahead=8)) == [i * i for i in range(10)]


@pytest.mark.parametrize("ahead", [1, 3, 64])
def test_no_more_items_are_taken_than_asked_for(ahead):
    taken = []

    def items():
        for item in itertools.count():
            taken.append(item)
            yield item

    results = read_ahead(lambda item: item, items(), workers=2, ahead=ahead)
    assert taken == []  # nothing happens before the first result is asked for
    for place in range(5):
        assert next(results) == place
        assert len(taken) == place + ahead
    results.close()


def test_an_endless_generator_can_be_read():
    results = read_ahead(str, itertools.count(), workers=2, ahead=4)
    assert list(itertools.islice(results, 1000)) == [str(i) for i in range(1000)]


def test_an_exception_comes_at_its_place():
    results = read_ahead(lambda item: 12 // item, [3, 2, 1, 0, 4], workers=2)
    assert [next(results) for _ in range(3)] == [4, 6, 12]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_work_that_nobody_waits_for_is_given_up():
    started, may_go_on = [], threading.Event()

    def work(item):
        started.append(item)
        assert item == 0 or may_go_on.wait(30)
        return item

    results = read_ahead(work, range(50), workers=2, ahead=50)
    assert next(results) == 0
    results.close()
    may_go_on.set()
    for thread in threading.enumerate():
        if thread.name.startswith("taxonet-read"):
            thread.join(30)
    assert len(started) <= 3  # the first, and those that the two threads were at


def test_no_items():
    assert list(read_ahead(str, [])) == []
