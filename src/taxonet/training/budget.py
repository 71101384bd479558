"""`train --budget 10m`: the best classifier that this machine can make in that time.

A few steps of the likeliest networks are measured on the user's own photos, `budget_rule.py` chooses, `deadline.py`
watches. What was chosen, and why, is printed, shown in the report, and kept in run.json: a run that goes on does not
measure again.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from taxonet.console import Listener
from taxonet.errors import NoMemoryError, TrainingError, UsageError
from taxonet.processes import World
from taxonet.training.budget_rule import MARGIN, Counts, Option, Rates, Row, best_of, judge, needed
from taxonet.training.candidates import (
    TINY,
    Candidate,
    Wish,
    accuracy_of,
    candidates,
    networks_elsewhere,
    of_entry,
    options_of,
    recipe_of,
    short_side,
    sizes_of,
)
from taxonet.training.deadline import Cuts, Deadline
from taxonet.training.duration import enough, parse_duration, spoken
from taxonet.training.estimate import peak_memory
from taxonet.training.pictures import Split
from taxonet.training.starting import Start, start_of
from taxonet.training.throughput import estimated, measure, slower
from taxonet.weights.catalogue import Entry

MEASURING_SHARE, MEASURING_SECONDS = 0.1, 5.0  # of the budget, and what it may take at least
PYTHON_SECONDS = 2.0  # the interpreter and torch were loaded before the clock began
REPORT_SECONDS, EXPLAIN_SECONDS, EXPLAIN_SHARE = 3.0, 5.0, 0.02  # after the last validation; at most, and of the budget
WORTH_A_PULL, LARGEST_PULLED, DOUBT = 0.5, 300, 2.0  # points that weights from elsewhere must add to be named; up to
# this size; and so much slower than by their multiply-adds, as other families are
SHOWN = 10  # rows of the table that are printed
LATE_BY = 1.05  # of the budget, beyond which a run that ends says that it is late
PUBLIC = ("asked", "seconds", "chosen", "rows", "notes")  # of the budget in a run's result
LITTLE = 0.7  # of the budget: a plan that needs less says why


@dataclass(frozen=True)
class Budget:
    """A budget of time, and what was chosen for it; the parts are those of run.json."""

    asked: str
    seconds: float
    chosen: Mapping[str, Any]  # a row
    rows: Sequence[Mapping[str, Any]]  # every option, the best first
    notes: Sequence[str]
    used: float  # seconds, when the choice was made
    step_seconds: float
    between: float
    finish: float
    values: Mapping[str, Any] = field(default_factory=dict)  # of the recipe, which were chosen

    def deadline(self, began: float) -> Deadline:
        """The clock of the run; `began` is what `time.monotonic()` said when nothing was used."""
        return Deadline(self.seconds, began, self.step_seconds, self.between, self.finish)

    def as_dict(self) -> dict[str, Any]:
        """What run.json keeps."""
        return asdict(self)

    @property
    def lines(self) -> list[str]:
        """The choice as a table for a person."""
        return [f"budget: {self.asked}, {spoken(self.used)} of them used for reading and measuring", *table(self)]


@dataclass(frozen=True)
class Spent:
    """What became of a budget: seconds used, and the epochs trained of those planned where it was shortened."""

    budget: Budget
    used: float
    planned_epochs: float = 0.0
    epochs: float | None = None  # None where nothing was cut

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        kept = {name: value for name, value in self.budget.as_dict().items() if name in PUBLIC}
        return {**kept, "used": round(self.used, 1), "late": self.late, "shortened_to_epochs": self.epochs}

    @property
    def late(self) -> bool:
        """Whether the budget did not hold."""
        return self.used > LATE_BY * self.budget.seconds

    def __str__(self) -> str:
        used, whole = spoken(self.used), spoken(self.budget.seconds)
        cut = (
            ""
            if self.epochs is None
            else f", {self.epochs:.3g} of {self.planned_epochs:g} planned epochs, as it was slower"
        )
        if self.late:
            return f"budget: late, {used} used of {whole}: the machine was slower than measured{cut}"
        return f"budget: {used} used of {whole}{cut}"


def spent(budget: Budget, deadline: Deadline, cuts: Cuts, steps_an_epoch: int) -> Spent:
    """What has become of a budget by now."""
    planned = float(budget.values.get("epochs", budget.chosen["epochs"]))
    return Spent(budget, deadline.used(), planned, cuts[-1][1] / steps_an_epoch if cuts else None)


def kept_budget(run: Path, before: Mapping[str, Any], asked: str | None) -> Budget | None:
    """The budget of a run that goes on; another one is refused."""
    stored = before.get("budget")
    kept = Budget(**stored) if stored else None
    if asked is not None and (kept is None or parse_duration(asked) != kept.seconds):
        has = f"the budget {kept.asked}" if kept else "no budget"
        raise UsageError(f"the run in {run} has {has}, not {asked}; it keeps what it has, leave --budget out")
    return kept


def plan(
    asked: str, wish: Wish, split: Split, started: float, listener: Listener, explain: bool, world: World
) -> tuple[Budget, Candidate]:
    """Measure, choose, and say what was chosen and why.

    Args:
        asked: the budget as the user wrote it.
        wish: what the user has fixed.
        split: the pictures.
        started: what `time.monotonic()` said when the command began.
        listener: who is told.
        explain: whether the report explains the mistakes, which takes some seconds.
        world: this process alone, on the device that the run will have.

    Raises:
        UsageError: nothing fits; the sentence has the least budget that would do.
        TrainingError: memory holds none of the networks.
    """
    planner = _Planner(parse_duration(asked), wish, split, started, listener, explain, world)
    best = planner.search()
    if best is None:
        raise UsageError(planner.refusal(asked))
    budget = planner.chosen(asked, best)
    for line in budget.lines:
        listener.say(line)
    return budget, planner.of[best.option.network]


class _Planner:
    """The search for the best option: what looks best is measured, until what looks best was measured."""

    def __init__(
        self,
        seconds: float,
        wish: Wish,
        split: Split,
        started: float,
        listener: Listener,
        explain: bool,
        world: World,
    ) -> None:
        self.seconds, self.wish, self.split, self.listener, self.world = seconds, wish, split, listener, world
        self.started = started - PYTHON_SECONDS
        self.finish = REPORT_SECONDS + (min(EXPLAIN_SECONDS, EXPLAIN_SHARE * seconds) if explain else 0.0)
        self.counts = Counts(len(split.train), len(split.val), len(split.test), len(split.classes))
        pictures = short_side(split.train)
        self.tiny = pictures <= TINY
        self.of = {candidate.network: candidate for candidate in candidates(wish, split)}
        self.options = [
            option for c in self.of.values() for option in options_of(c, wish, split, sizes_of(c, pictures))
        ]
        self.measured: dict[tuple[str, int], Rates] = {}
        self.failed: dict[tuple[str, int], str] = {}
        self.starts: dict[str, Start] = {}

    def used(self) -> float:
        return time.monotonic() - self.started

    def search(self) -> Row | None:
        """The best option, whose rates are measured; None where nothing fits."""
        allowance = max(MEASURING_SECONDS, MEASURING_SHARE * self.seconds)
        begun = time.monotonic()
        least = min(self.of.values(), key=lambda candidate: candidate.macs(candidate.native))
        first = next(option for option in self.options if option.network == least.network)  # at its own size
        self._measure(first, steps=False)
        while True:
            rows = self.rows()
            best = best_of(rows)
            if best is None or best.measured:
                return best
            if time.monotonic() - begun > allowance:
                known = best_of(row for row in rows if row.measured)
                if known is not None:
                    return known
            self._measure(best.option, steps=best.option.kind != "features")

    def rows(self) -> list[Row]:
        """Every option judged by what is known now."""
        left = self.seconds - self.used()
        rows = []
        for option in self.options:
            row = judge(option, self._rates(option), self.counts, left, self.finish)
            failure = self.failed.get((option.network, option.size))
            rows.append(replace(row, obstacle=failure) if failure else row)
        return rows

    def _rates(self, option: Option) -> Rates:
        found = self.measured.get((option.network, option.size))
        if found is not None and (found.step_measured or option.kind == "features"):
            return found
        guess = self._estimated(self.of[option.network], option.size)
        return guess if found is None else replace(found, step=guess.step, save=guess.save)

    def _estimated(self, candidate: Candidate, size: int) -> Rates:
        known = [(self.of[name], at, rates) for (name, at), rates in self.measured.items()]
        return estimated(candidate, size, known)

    def _measure(self, option: Option, steps: bool) -> None:
        candidate, key = self.of[option.network], (option.network, option.size)
        self.listener.start(f"measuring {option.network} at {option.size} pixels", 1)
        begun = time.monotonic()
        start = self.starts.setdefault(option.network, start_of(option.network, candidate.weights, self.split))
        loading = time.monotonic() - begun
        recipe = recipe_of(candidate, self._recipe(option), self.split, self._values(option))
        try:
            rates = measure(start, recipe, self.split, steps, self.world)
        except (TrainingError, NoMemoryError) as error:
            self.failed[key] = str(error)
            self.measured.setdefault(key, Rates(0.0, 1e9, 1e9, 1e9, 0.0, 0.0, True, True))
            return
        finally:
            self.listener.finish()
        self.measured[key] = replace(rates, begin=rates.begin + loading)
        training = f", {1 / rates.step:.1f} images/s of training" if rates.step_measured else ""
        self.listener.say(
            f"measured: {option.network} at {option.size} pixels: {1 / rates.feature:.1f} images/s through the frozen "
            f"network{training}"
        )

    def _recipe(self, option: Option) -> Any:
        return self.wish.recipe if self.wish.recipe is not None else option.recipe

    def _values(self, option: Option) -> dict[str, Any]:
        return {**self.wish.values, "image_size": option.size}

    def refusal(self, asked: str) -> str:
        """The sentence where nothing fits: what would."""
        possible = [o for o in self.options if (o.network, o.size) not in self.failed]
        if not possible:
            raise TrainingError(next(iter(self.failed.values())))
        row = min(
            (judge(o, self._rates(o), self.counts, 1e12, self.finish) for o in possible),
            key=lambda row: needed(row.option, row.rates, self.counts, row.option.least, self.finish),
        )
        option = row.option
        seconds = self.used() + needed(option, row.rates, self.counts, option.least, self.finish) / MARGIN
        what = "the classifier alone" if option.kind == "features" else f"{option.least} epochs"
        return (
            f"the budget {asked} is too little: the quickest way, {what} of {option.network} at {option.size} pixels "
            f"on {self.counts.train:,} pictures, takes {spoken(seconds)} on this machine; --budget {enough(seconds)}"
        )

    def chosen(self, asked: str, best: Row) -> Budget:
        """The choice, with all that is kept of it."""
        rows = sorted(self.rows(), key=lambda row: (-row.worth, row.seconds))
        rows = [best, *(row for row in rows if row.option != best.option)]
        rows = [self._unproven(row, best) for row in rows]
        option, rates = best.option, best.rates
        recipe = recipe_of(self.of[option.network], self._recipe(option), self.split, self._values(option))
        between = rates.answer * self.counts.val + rates.save
        finish = self.finish + rates.answer * self.counts.test
        values = {"image_size": option.size} | ({"epochs": best.epochs} if option.kind != "features" else {})
        step = rates.step * min(recipe.batch_size * recipe.accumulate, self.counts.train)
        notes = [note for note in (self._little(best), self._memory(), self._pull(best)) if note]
        told = [row.as_dict() for row in rows]
        used = self.used()
        return Budget(asked, self.seconds, told[0], told, notes, used, step, between, finish, values)

    def _unproven(self, row: Row, best: Row) -> Row:
        """A row that looks better than what was taken says why it was not."""
        if row.obstacle or row.measured or row.worth <= best.worth:
            return row
        return replace(row, terms=f"{row.terms}; not measured: the time for measuring was over")

    def _little(self, best: Row) -> str:
        whole = self.used() + best.seconds
        if whole >= LITTLE * self.seconds or best.epochs < best.option.most:
            return ""
        return (
            f"the run needs about {spoken(whole)} of {spoken(self.seconds)}: by the rule more time would not help it, "
            "as all that the best network which is here may be trained fits"
        )

    def _memory(self) -> str:
        peak = peak_memory()
        return f"memory while measuring: {peak / 2**30:.1f} GB at most" if peak else ""

    def _pull(self, best: Row) -> str:
        """What weights that are not here would add, estimated by their multiply-adds."""
        if self.wish.model is not None or self.wish.weights == "none":
            return ""
        found: tuple[Row, Entry] | None = None
        least = best.worth + WORTH_A_PULL
        for entry in networks_elsewhere(LARGEST_PULLED):  # the best published first
            if accuracy_of(entry, self.tiny) <= least:
                break
            candidate = of_entry(entry, self.counts.classes, self.tiny)
            rates = slower(self._estimated(candidate, candidate.native), DOUBT)
            for option in options_of(candidate, self.wish, self.split, [candidate.native]):
                row = judge(option, rates, self.counts, self.seconds - self.used(), self.finish)
                if not row.obstacle and row.worth > least:
                    found, least = (row, entry), row.worth
        if found is None:
            return ""
        row, entry = found
        how = f"pip install {entry.package}" if entry.package else f"taxonet pull {entry.name}"
        return (
            f"not here: {entry.name}, published top-1 {entry.published['top1']:g} %, should fit by its multiply-adds "
            f"and be worth {row.worth - best.worth:.1f} points more by the rule: {how}"
        )


def table(budget: Budget) -> list[str]:
    """The best rows of the options in columns, and the notes."""
    header = ("network", "pixels", "recipe", "images/s", "epochs", "worth", "")
    cells = [header]
    for number, row in enumerate(budget.rows[:SHOWN]):
        rate = f"{row['images_per_second']:.1f}" + ("" if row["measured"] else " ~")
        epochs = "–" if row["obstacle"] or row["recipe"] == "features" else f"{row['epochs']} of {row['recipe_epochs']}"
        worth = "–" if row["obstacle"] else f"{row['worth']:.1f}"
        why = row["obstacle"] or row["terms"]
        why = f"chosen: {why}" if number == 0 else why
        cells.append((row["network"], str(row["image_size"]), row["recipe"], rate, epochs, worth, why))
    widths = [max(len(line[i]) for line in cells) for i in range(len(header))]
    right = {1, 3, 4, 5}
    lines = [
        "  ".join(
            c.rjust(w) if i in right else c.ljust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in cells
    ]
    more = len(budget.rows) - SHOWN
    if more > 0:
        lines.append(f"… and {more} more in run.json")
    if any(not row["measured"] for row in budget.rows[:SHOWN]):
        lines.append("~ estimated by multiply-adds; what is chosen was measured")
    return [*lines, *budget.notes]
