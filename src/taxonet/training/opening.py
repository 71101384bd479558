"""The folder of a run before the run: whether it can begin there, or goes on, and with what."""

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from taxonet.errors import UsageError
from taxonet.files import check_folder
from taxonet.processes import World, launch_name, restarted
from taxonet.training.choose import NAMED
from taxonet.training.recipe import Recipe, read_recipe

RECIPE, RUN, EXCLUDE = "recipe.toml", "run.json", "exclude.txt"
NEEDED = ("source", "fingerprint", "model", "counts")  # of run.json, by a run that goes on


@dataclass(frozen=True)
class Opening:
    """What the folder says: whether a run goes on there, and that run's facts and recipe."""

    resume: bool
    facts: dict[str, Any]
    recipe: Recipe | None


def open_run(run: Path, resume: bool, world: World, say: Callable[[str], None]) -> Opening:
    """Look at a run's folder; the first process does, since it alone writes there and the others may be elsewhere.

    A start that was cut off before the recipe was written is begun again. After a restart by torchrun the run that the
    same launch had begun goes on without being asked to.

    Raises:
        UsageError: there is a run and nobody asked to go on with it, or there is none to go on with.
    """

    def look() -> bytes:
        goes_on = resume or _is_of_this_launch(run)
        _check_run_folder(run, goes_on)
        if not goes_on and _leftovers(run):
            say(f"{run} holds a start that was cut off; the run begins again")
        facts = _stored_run(run) if goes_on else {}
        text = read_recipe(run / RECIPE).to_toml() if goes_on else ""
        return json.dumps([goes_on, facts, text]).encode()

    goes_on, facts, text = json.loads(world.from_first(look))
    return Opening(goes_on, facts, Recipe.from_toml(text) if goes_on else None)


def check_nothing_else_is_asked(run: Path, stored: Recipe, recipe: Any, overrides: dict[str, Any]) -> None:
    """A resumed run keeps its recipe: a value that would be ignored is refused."""
    asked = {name: value for name, value in overrides.items() if value is not None}
    stored.with_values(asked)  # an unknown name is refused first
    if isinstance(recipe, Recipe):
        asked = asdict(recipe) | asked
    elif recipe in NAMED:
        asked["name"] = recipe
    elif recipe is not None:
        asked = asdict(read_recipe(Path(recipe))) | asked
    for name, value in asked.items():
        if getattr(stored, name) != value and value != "auto":  # what auto became is recorded
            raise UsageError(f"the run in {run} has {name} {getattr(stored, name)}, not {value}; it keeps its recipe")


def check_same_weights(run: Path, stored: str, asked: str) -> None:
    """A resumed run keeps the weights that it started from."""
    if asked not in ("auto", stored):
        raise UsageError(f"the run in {run} started from the weights {stored}, not {asked}; it keeps them")


def _is_of_this_launch(run: Path) -> bool:
    if not restarted() or not (run / RECIPE).is_file():
        return False
    return bool(_stored_run(run).get("launch") == launch_name())


def _stored_run(run: Path) -> dict[str, Any]:
    try:
        stored: dict[str, Any] = json.loads((run / RUN).read_text("utf-8"))
        missing = next((name for name in NEEDED if name not in stored), None)
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(f"{run} holds no run to resume: {error}") from error
    if missing:
        raise UsageError(f"{run} holds no run to resume: its {RUN} lacks '{missing}'")
    return stored


def _check_run_folder(run: Path, resume: bool) -> None:
    if os.path.isfile(run):  # noqa: PTH113 - false, not an error, where nobody may look
        raise UsageError(f"{run} is a file, --out must be a folder")
    check_folder(run)
    if resume and not (run / RECIPE).is_file():
        if not run.exists():
            raise UsageError(f"{run} does not exist, there is no run to resume; begin one without --resume")
        hint = "; the start there was cut off, begin it again without --resume" if _leftovers(run) else ""
        raise UsageError(f"{run} holds no run to resume, there is no {RECIPE} in it{hint}")
    if not resume and run.is_dir() and any(run.iterdir()) and not _leftovers(run):
        raise UsageError(f"the folder {run} is not empty; add --resume to go on with its run, or choose another --out")


def _leftovers(run: Path) -> bool:
    """Whether all that the folder holds is what a start leaves that was killed before its recipe was there.

    Before the recipe only run.json and then the list of exclusions are written, so nothing of a user's can be taken
    for it.
    """
    files = list(run.iterdir()) if run.is_dir() else []
    ours = [file for file in files if _is_temporary(file.name) or (file.name in (RUN, EXCLUDE) and _is_ours(run))]
    return bool(files) and len(ours) == len(files)


def _is_temporary(name: str) -> bool:
    return any(name.startswith(f".{stem}.") and name.endswith(".tmp") for stem in (RUN, EXCLUDE, RECIPE))


def _is_ours(run: Path) -> bool:
    try:
        return bool(_stored_run(run))
    except UsageError:
        return False
