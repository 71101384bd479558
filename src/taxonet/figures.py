"""Counts and times as people read them."""


def short_count(count: int | None) -> str:
    """7978856 → 7.98 M."""
    if count is None:
        return "–"
    for suffix, unit in (("G", 1_000_000_000), ("M", 1_000_000), ("k", 1_000)):
        if count >= unit:
            return f"{count / unit:.3g} {suffix}" if count < 1000 * unit else f"{count / unit:,.0f} {suffix}"
    return str(count)


def duration(seconds: float) -> str:
    """40 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def counted(number: int, one: str, many: str = "") -> str:
    """1 picture, 2,000 pictures; 1 class, 2 classes."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"
