"""Labels travel by name: a sample finds its index by the name of its class, whatever else the folder holds."""

from collections.abc import Iterable, Sequence

from taxonet.data.sources import Finding, Sample
from taxonet.errors import DataError, nearest


class ClassIndex:
    """The class names of a model and their indices; two names that are equal are refused."""

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = tuple(classes)
        self._index = {name: i for i, name in enumerate(self.classes)}
        if len(self._index) != len(self.classes):
            raise DataError("the class names are not unique")

    def __len__(self) -> int:
        return len(self.classes)

    def __contains__(self, name: str) -> bool:
        return name in self._index

    def __getitem__(self, name: str) -> int:
        """The index of a class name; an unknown one raises `DataError` with the nearest name."""
        if name not in self._index:
            raise DataError(f"the model has no class '{name}'{nearest(name, self.classes)}")
        return self._index[name]


def sort_by_known(samples: Iterable[Sample], classes: ClassIndex) -> tuple[list[Sample], list[Finding]]:
    """Samples whose class the model knows, and a finding for each of the others."""
    known, unknown = [], []
    for sample in samples:
        if sample.label in classes:
            known.append(sample)
        else:
            hint = nearest(sample.label, classes.classes)
            unknown.append(Finding(str(sample.path), f"the model has no class '{sample.label}'{hint}"))
    return known, unknown
