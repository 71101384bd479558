"""Contenders measured in turn, so that whatever else the machine does hits all of them alike."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def in_turn(
    contenders: int,
    once: Callable[[int, int], T],
    rounds: int,
    *,
    warm_up: int,
    least: int = 0,
    seconds: float = float("inf"),
    after_round: Callable[[], None] = lambda: None,
) -> list[list[T]]:
    """What `once(contender, round)` gives for each contender, over the rounds that count.

    Args:
        contenders: how many there are.
        once: measures one of them; it learns the number of the round, too.
        rounds: how many rounds count.
        warm_up: rounds before them that do not.
        least: rounds that count, however long they take.
        seconds: after which, beyond `least`, no further round starts.
        after_round: called after each.

    Each contender has its turn in every round, and another one begins each time.
    """
    found: list[list[T]] = [[] for _ in range(contenders)]
    end = time.monotonic() + seconds
    for number in range(warm_up + rounds):
        for turn in range(contenders):
            i = (turn + number) % contenders
            result = once(i, number)
            if number >= warm_up:
                found[i].append(result)
        after_round()
        if number + 1 >= warm_up + least and time.monotonic() > end:
            break
    return found
