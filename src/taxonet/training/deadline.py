"""The clock of a run that has a budget of time.

The plan fixes the epochs before the first step, so that a run which keeps its pace ends as any other run: in the same
bits, stopped and resumed or not. Only where the machine turns out slower than it was measured to be is the rest of the
schedule shortened: a *cut* moves the last step forward, and the learning rate falls as much faster. A cut is part of
the position, which is saved at once; a resumed run keeps the cuts that were made.

What counts as used is the time on the way to where the run is. Work that a kill has lost and the start of the process
that goes on are not on that way: a run that was killed is not shortened for it.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from taxonet.training.duration import spoken

LATE, AIM = 1.03, 0.99  # of the budget: a projected end beyond the first is brought back to the second
WINDOW = 0.2  # of the budget: the pace is that of so long a time, shorter towards the end
SHORTEST_WINDOW = 4.0  # seconds

Cuts = Sequence[Sequence[int]]  # (the step at which it was made, the last step from then on)


def last_step(cuts: Cuts, planned: int) -> int:
    """The step after which training ends."""
    return cuts[-1][1] if cuts else planned


def place_in_schedule(step: float, cuts: Cuts, planned: int) -> float:
    """The step of the planned schedule at which a run with cuts is: after the last one, as at its planned end."""
    place, since, end = 0.0, 0, planned
    for made_at, new_end in cuts:
        if step <= made_at:
            break
        place += (made_at - since) * (planned - place) / (end - since)
        since, end = made_at, new_end
    return place + (step - since) * (planned - place) / max(end - since, 1)


@dataclass
class Deadline:
    """When a run must end, and whether it will.

    Attributes:
        budget: seconds in all.
        began: what the clock said when none of them were used.
        step_seconds: of a step, as planned.
        between: seconds of a validation with its checkpoint, as planned and then as seen.
        finish: seconds that the end takes: test pictures, report.
    """

    budget: float
    began: float
    step_seconds: float
    between: float
    finish: float
    clock: Callable[[], float] = time.monotonic
    _seen: deque[float] = field(default_factory=deque)
    _seen_seconds: float = 0.0  # their sum
    _begun: bool = False

    def used(self) -> float:
        """Seconds of the budget that are used."""
        return self.clock() - self.began

    def left(self) -> float:
        """Seconds until the end of the budget."""
        return self.budget - self.used()

    def go_on(self, used: float) -> None:
        """The run goes on from where it had used so many seconds."""
        self.began = self.clock() - used

    def saw_between(self, seconds: float) -> None:
        """What lies between two epochs took so long; the first time it makes kernels, so the plan keeps half a say."""
        self.between = (self.between + seconds) / 2

    def saw_step(self, seconds: float) -> None:
        """A step took so long; the first one makes kernels and is not counted."""
        if self._begun:
            self._seen.append(seconds)
            self._seen_seconds += seconds
        self._begun = True

    def new_end(self, step: int, end: int, steps_an_epoch: int) -> int | None:
        """The step at which training must end for the budget to hold; None where the end that is planned holds."""
        rest = end - step
        if rest <= 0 or self._seen_seconds < min(SHORTEST_WINDOW, WINDOW * self.budget):
            return None
        pace, used = self._pace(rest), self.used()
        if used + self._needed(step, end, steps_an_epoch, pace) <= LATE * self.budget:
            return None
        first, beyond = step, end  # the largest end that fits, by halving; `step` where none does
        while beyond - first > 1:
            middle = (first + beyond) // 2
            fits = used + self._needed(step, middle, steps_an_epoch, pace) <= AIM * self.budget
            first, beyond = (middle, beyond) if fits else (first, middle)
        return first

    def sentence(self, step: int, end: int, new: int, steps_an_epoch: int) -> str:
        """What a person is told of a cut."""
        pace = self._pace(end - step)
        late = self.used() + self._needed(step, end, steps_an_epoch, pace)
        return (
            f"late: the end would come after {spoken(late)} of {spoken(self.budget)} (a step takes {pace:.2f} s, "
            f"{self.step_seconds:.2f} s were planned); training is shortened from {end / steps_an_epoch:.3g} to "
            f"{new / steps_an_epoch:.3g} epochs, the learning rate falls faster"
        )

    def _needed(self, step: int, end: int, steps_an_epoch: int, pace: float) -> float:
        validations = -(-end // steps_an_epoch) - step // steps_an_epoch
        return (end - step) * pace + max(validations, 1) * self.between + self.finish

    def _pace(self, rest: int) -> float:
        """Seconds a step: those of the window, in which the plan stands for what was not seen yet."""
        window = min(WINDOW * self.budget, max(SHORTEST_WINDOW, rest * self.step_seconds))
        while len(self._seen) > 1 and self._seen_seconds - self._seen[0] >= window:
            self._seen_seconds -= self._seen.popleft()
        missing = max(0.0, window - self._seen_seconds)
        return (self._seen_seconds + missing) / max(len(self._seen) + missing / self.step_seconds, 1e-9)
