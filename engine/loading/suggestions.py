"""Did you mean: the known name that a mistyped one is most like."""

import difflib
from collections.abc import Collection
from itertools import islice

_BUDGET = 100_000
"""Comparisons for one manifest, about a second: ten thousand typos shall not take an hour."""


class Suggestions:
    """Finds similar names, until the work set aside for it is used up."""

    def __init__(self, budget: int = _BUDGET) -> None:
        self._budget = budget

    def closest(self, name: str, known: Collection[str]) -> str | None:
        """Return the name in `known` that `name` was probably meant to be, or None."""
        if len(known) > self._budget:
            return None
        self._budget -= len(known)
        lowered = {candidate.lower(): candidate for candidate in known}
        close = difflib.get_close_matches(name.lower(), lowered, n=3, cutoff=0.6)
        # user1 is no misspelling of user0.
        return next(
            (lowered[other] for other in close if not _only_digits_differ(name, other)), None
        )

    def hint(self, name: str, known: Collection[str], otherwise: str = "") -> str:
        """Return `Did you mean …?`, or `otherwise` when nothing is like `name`."""
        close = self.closest(name, known)
        return f"Did you mean {close}?" if close is not None else otherwise


def _only_digits_differ(name: str, other: str) -> bool:
    pairs = list(zip(name.lower(), other, strict=False))
    return (
        len(name) == len(other)
        and all(one == two or (one.isdecimal() and two.isdecimal()) for one, two in pairs)
        and any(one != two for one, two in pairs)
    )


def listing(names: Collection[str], limit: int = 12) -> str:
    """Return the names with commas between; of more than `limit` only how many more."""
    shown = ", ".join(islice(names, limit))
    more = len(names) - limit
    return f"{shown} and {more} more" if more > 0 else shown
