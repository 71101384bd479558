"""Where pictures and labels come from: folders, tables, splits, and reading ahead."""

from taxonet.data.inputs import Inputs, expand_inputs
from taxonet.data.labels import ClassIndex, sort_by_known
from taxonet.data.loader import read_ahead
from taxonet.data.sources import DataSet, Finding, Sample, read_data
from taxonet.data.splits import stratified_split

__all__ = [
    "ClassIndex",
    "DataSet",
    "Finding",
    "Inputs",
    "Sample",
    "expand_inputs",
    "read_ahead",
    "read_data",
    "sort_by_known",
    "stratified_split",
]
