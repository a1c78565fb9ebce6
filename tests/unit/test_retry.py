"""A failed step leads to another attempt after a backoff, or to the end."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from order_engine.domain.errors import ReasonCode
from order_engine.domain.events import AttemptFailed, OrderFailed
from order_engine.domain.retry import RetryPolicy, after_failure
from tests.unit.samples import QUICK

# All policies that the settings allow.
policies = st.builds(
    RetryPolicy,
    max_attempts=st.integers(1, 20),
    backoff_ms=st.integers(0, 600_000),
    backoff_max_ms=st.integers(0, 3_600_000),
    jitter_percent=st.integers(0, 100),
)
randomness = st.floats(0, 1, exclude_max=True)


@pytest.mark.parametrize(
    ("attempt", "pause"), [(1, 1_000), (2, 2_000), (3, 4_000), (5, 16_000), (6, 30_000), (20, 30_000)]
)
def test_the_pause_doubles_up_to_the_longest(attempt: int, pause: int) -> None:
    assert RetryPolicy(jitter_percent=0).backoff(attempt, 0.5) == pause


@pytest.mark.parametrize(("chance", "pause"), [(0.0, 800), (0.5, 1_000), (0.999999, 1_199)])
def test_the_jitter_spreads_the_pause_either_way(chance: float, pause: int) -> None:
    assert RetryPolicy().backoff(1, chance) == pause


@QUICK
@given(policies, st.integers(1, 10**6), randomness)
def test_a_pause_stays_within_its_spread(policy: RetryPolicy, attempt: int, chance: float) -> None:
    middle = min(policy.backoff_ms * 2 ** min(attempt - 1, 64), policy.backoff_max_ms)
    spread = middle * policy.jitter_percent // 100
    pause = policy.backoff(attempt, chance)
    assert isinstance(pause, int)
    assert 0 <= middle - spread <= pause <= middle + spread


def test_no_pause_is_longer_than_the_longest() -> None:
    policy = RetryPolicy(backoff_max_ms=30_000, jitter_percent=20)
    assert policy.backoff(20, 0.999) <= policy.backoff_max_ms


@QUICK
@given(policies, st.integers(1, 30), randomness)
def test_pauses_never_shrink_from_attempt_to_attempt(policy: RetryPolicy, attempt: int, chance: float) -> None:
    assert policy.backoff(attempt, chance) <= policy.backoff(attempt + 1, chance)


@QUICK
@given(policies, st.integers(1, 25), randomness, st.sampled_from(ReasonCode), st.booleans())
def test_a_failure_leads_to_another_attempt_only_while_some_are_left(
    policy: RetryPolicy,
    attempt: int,
    chance: float,
    code: ReasonCode,
    is_retryable: bool,  # noqa: FBT001 - hypothesis draws it
) -> None:
    fact = after_failure(policy, attempt, code, "the cause", is_retryable=is_retryable, randomness=chance)
    assert fact.code is code
    assert "the cause" in fact.message
    if is_retryable and attempt < policy.max_attempts:
        assert isinstance(fact, AttemptFailed)
        assert fact.retry_in_ms == policy.backoff(attempt, chance)
        assert f"attempt {attempt} of {policy.max_attempts}" in fact.message
    else:
        assert isinstance(fact, OrderFailed)


def test_what_cannot_be_helped_ends_at_once_with_its_cause_alone() -> None:
    fact = after_failure(RetryPolicy(), 1, ReasonCode.NO_ROUTE, "no pool", is_retryable=False, randomness=0)
    assert fact == OrderFailed(ReasonCode.NO_ROUTE, "no pool")


def test_the_last_attempt_ends_with_the_cause_and_the_count() -> None:
    fact = after_failure(RetryPolicy(), 3, ReasonCode.VENUE_ERROR, "refused", is_retryable=True, randomness=0)
    assert fact == OrderFailed(ReasonCode.VENUE_ERROR, "refused (attempt 3 of 3, the last)")


def test_one_attempt_means_no_retry() -> None:
    policy = RetryPolicy(max_attempts=1)
    fact = after_failure(policy, 1, ReasonCode.VENUE_ERROR, "refused", is_retryable=True, randomness=0)
    assert isinstance(fact, OrderFailed)
