"""Paired tests: two models answered the same photos, so only the photos that one of them got wrong tell them apart."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 10_000
LEVEL = 0.95
SIGNIFICANT = 0.05
BLOCK = 2**24  # photo indices drawn at once by the bootstrap

Interval = tuple[float, float]


@dataclass(frozen=True)
class PairedTest:
    """The model `better` against the model `other` on `n` photos; differences are better − other.

    `p_exact` and `p_mid` are McNemar's test of equal accuracy on the photos that exactly one model got right;
    `p` is `p_mid` after Holm's correction for all pairs of the comparison. Intervals are of the paired bootstrap, 95 %.
    """

    better: str
    other: str
    n: int
    only_better: int  # photos that only `better` got right
    only_other: int
    difference: float  # of top-1
    difference_ci: Interval
    log_loss_difference: float  # below 0 where `better` has the lower loss too
    log_loss_difference_ci: Interval
    p_exact: float
    p_mid: float
    p: float

    @property
    def significant(self) -> bool:
        """Whether `p` is below 0.05."""
        return self.p < SIGNIFICANT

    @property
    def sentence(self) -> str:
        """The result in plain words."""
        if not self.only_better and not self.only_other:
            return f"{self.better} and {self.other} are right and wrong on the same of {self.n} photos"
        low, high = (100 * v for v in self.difference_ci)
        points = f"{100 * self.difference:.1f} points ({low:.1f} to {high:.1f})".replace("-", "−")
        if self.significant:
            return f"{self.better} is better than {self.other} by {points}, {_p(self.p)}"
        return f"{self.n} photos cannot tell {self.better} from {self.other}: difference {points}, {_p(self.p)}"


def _p(value: float) -> str:
    return "p < 0.001" if value < 0.001 else f"p = {value:.2g}" if value < 0.995 else "p = 1"


def mcnemar(only_first: int, only_second: int) -> tuple[float, float]:
    """Two-sided exact and mid-p values that both models are right equally often (McNemar 1947; Fagerland et al. 2013,
    doi 10.1186/1471-2288-13-91, which recommends mid-p: the exact test is needlessly cautious)."""
    from scipy.stats import binom, binomtest

    total = only_first + only_second
    if total == 0:
        return 1.0, 1.0
    fewer = min(only_first, only_second)
    exact = float(binomtest(fewer, total).pvalue)
    return exact, float(min(1.0, 2 * (binom.cdf(fewer, total, 0.5) - 0.5 * binom.pmf(fewer, total, 0.5))))


def bootstrap_means(columns: NDArray[np.float64], seed: int = 0, resamples: int = RESAMPLES) -> list[Interval]:
    """The percentile interval of the mean of each column (n, k), whole rows drawn again: what is paired stays paired.

    Efron and Tibshirani 1993, chapter 13.
    """
    rng = np.random.default_rng(seed)
    n = len(columns)
    means = np.empty((resamples, columns.shape[1]))
    block = max(1, BLOCK // n)
    for start in range(0, resamples, block):
        count = min(block, resamples - start)
        counts = rng.multinomial(n, np.full(n, 1 / n), size=count) if n <= 512 else _counts(rng, n, count)
        means[start : start + count] = counts @ columns / n
    tails = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return [(float(low), float(high)) for low, high in tails.T]


def _counts(rng: np.random.Generator, n: int, count: int) -> NDArray[np.int64]:
    """How often each of n rows was drawn in `count` draws of n."""
    drawn = rng.integers(0, n, (count, n)) + n * np.arange(count)[:, None]
    return np.bincount(drawn.ravel(), minlength=n * count).reshape(count, n)


def holm(p_values: Sequence[float]) -> list[float]:
    """P values corrected for their number (Holm 1979): the chance of one false finding among them stays bounded."""
    order = np.argsort(p_values, kind="stable")
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = largest
    return corrected


@dataclass(frozen=True)
class Answers:
    """One model's answers on the photos of a comparison: whether each is right (n,), and its log-loss (n,)."""

    name: str
    right: NDArray[np.bool_]
    loss: NDArray[np.float64]


def compare_pairs(models: Sequence[Answers], seed: int = 0) -> list[PairedTest]:
    """Every pair of models, the more accurate one first, corrected for the number of pairs."""
    pairs = [_ordered(a, b) for i, a in enumerate(models) for b in models[i + 1 :]]
    counts = [(int((a.right & ~b.right).sum()), int((b.right & ~a.right).sum())) for a, b in pairs]
    tests = [mcnemar(*count) for count in counts]
    corrected = holm([mid for _, mid in tests])
    results = []
    for (a, b), (only_a, only_b), (exact, mid), p in zip(pairs, counts, tests, corrected, strict=True):
        columns = np.stack([a.right.astype(float) - b.right, a.loss - b.loss], axis=1)
        top1_ci, loss_ci = bootstrap_means(columns, seed)
        top1, loss = (float(v) for v in columns.mean(axis=0))
        results.append(
            PairedTest(a.name, b.name, len(columns), only_a, only_b, top1, top1_ci, loss, loss_ci, exact, mid, p)
        )
    return results


def _ordered(a: Answers, b: Answers) -> tuple[Answers, Answers]:
    """The more accurate one first; among equals the one with the lower loss."""
    # rounded: the last bits of an engine decide nothing
    first, second = ((-m.right.mean(), round(float(m.loss.mean()), 4)) for m in (a, b))
    return (a, b) if first <= second else (b, a)
