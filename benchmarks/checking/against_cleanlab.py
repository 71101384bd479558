"""Claim: on the same probabilities our labels in doubt are nearly cleanlab's.

Of 40 made-up sets a twelfth of the labels is drawn anew.

    pip install cleanlab && python benchmarks/checking/against_cleanlab.py

cleanlab is no dependency of Taxonet (docs/check.md says why).
"""

import numpy as np
from cleanlab.filter import find_label_issues

from taxonet.checking.labels import doubtful

SETS, WRONG = 40, 1 / 12


def made_up(seed):
    """Probabilities (n, classes) of a fair classifier, and labels (n,) of which some are wrong."""
    rng = np.random.default_rng(seed)
    classes = int(rng.integers(2, 12))
    true = np.concatenate([np.repeat(np.arange(classes), 6), rng.integers(0, classes, int(rng.integers(60, 1500)))])
    logits = rng.normal(0, 1.2, (len(true), classes))
    logits[np.arange(len(true)), true] += rng.uniform(1.5, 4)
    exponents = np.exp(logits)
    wrong = rng.random(len(true)) < WRONG
    labels = np.where(wrong, rng.integers(0, classes, len(true)), true)
    return exponents / exponents.sum(1, keepdims=True), labels


def main():
    ours, theirs, both = 0, 0, 0
    for seed in range(SETS):
        probabilities, labels = made_up(seed)
        own = {picture for picture, _ in doubtful(probabilities, labels)}
        other = set(np.flatnonzero(find_label_issues(labels, probabilities, filter_by="both", n_jobs=1)).tolist())
        ours, theirs, both = ours + len(own), theirs + len(other), both + len(own & other)
    print(f"{SETS} sets: {ours} labels in doubt, cleanlab's {theirs}, {both} of them the same")


if __name__ == "__main__":
    main()
