"""How long to wait before trying again: exponential, capped, and spread by a random share."""

import random
from dataclasses import dataclass


@dataclass(frozen=True)
class Backoff:
    """`first` seconds after the first failure, then `factor` times as long, at most `limit`.

    `jitter` is the share (0 to 1) of the delay that is random, so that many do not retry at once.
    """

    first: float = 0.5
    factor: float = 2.0
    limit: float = 30.0
    jitter: float = 0.2

    def delay(self, failures: int, chance: float | None = None) -> float:
        """Return the seconds to wait after `failures` failures in a row (0 gives no wait).

        `chance` (0 to 1) stands in for the random number.
        """
        if failures <= 0:
            return 0.0
        whole = min(self.limit, self.first * self.factor ** min(failures - 1, 32))
        chance = random.random() if chance is None else chance  # noqa: S311 - not a secret
        return whole * (1 - self.jitter * chance)
