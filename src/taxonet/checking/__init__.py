"""The preflight of a data set: what is broken, doubled, odd or perhaps mislabelled in it.

Nothing is moved, changed or deleted.
"""

from taxonet.checking.check import CheckReport, check
from taxonet.checking.issues import KINDS, Issue, Kind

__all__ = ["KINDS", "CheckReport", "Issue", "Kind", "check"]
