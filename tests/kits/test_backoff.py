"""How long to wait before trying again."""

from hypothesis import given
from hypothesis import strategies as st

from engine.kits.backoff import Backoff


def test_delays_double_up_to_the_limit() -> None:
    backoff = Backoff(first=1, limit=5)
    assert [backoff.delay(n, chance=0) for n in range(5)] == [0, 1, 2, 4, 5]


@given(st.integers(1, 10_000), st.floats(0, 1))
def test_the_random_share_only_shortens(failures: int, chance: float) -> None:
    backoff = Backoff()
    whole = backoff.delay(failures, chance=0)
    assert whole * (1 - backoff.jitter) <= backoff.delay(failures, chance) <= whole <= backoff.limit
