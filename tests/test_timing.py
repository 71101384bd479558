"""Contenders measured in turn: every one in every round, another first each time, bounded by rounds and by time."""

from taxonet.timing import in_turn


def test_every_contender_has_its_turn_in_every_round_and_another_begins_each_time():
    calls = []
    found = in_turn(3, lambda i, number: calls.append((number, i)) or (i, number), 2, warm_up=1)
    assert [i for _, i in calls] == [0, 1, 2, 1, 2, 0, 2, 0, 1]
    assert found == [[(i, 1), (i, 2)] for i in range(3)]  # the warm-up does not count


def test_after_the_seconds_only_the_least_rounds_are_done():
    ended = []
    found = in_turn(2, lambda i, _: i, 50, warm_up=2, least=3, seconds=-1, after_round=lambda: ended.append(1))
    assert found == [[0] * 3, [1] * 3]
    assert len(ended) == 5
