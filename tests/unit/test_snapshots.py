"""A reader's new snapshot holds the transactions that it had seen and those that it was given, and no other."""

from hypothesis import given
from hypothesis import strategies as st

from order_engine.store.postgres.snapshots import moved_on

MOST = 12
numbers = st.integers(1, MOST)


def text(end: int, open_ones: set[int]) -> str:
    return f"{min(open_ones, default=end)}:{end}:{','.join(map(str, sorted(open_ones)))}"


def visible(snapshot: str) -> set[int]:
    """The transactions that had committed, as PostgreSQL reads a snapshot."""
    begin, end, open_ones = snapshot.split(":")
    listed = [int(it) for it in open_ones.split(",") if it]
    assert listed == sorted(set(listed))
    assert all(int(begin) <= it < int(end) for it in listed)
    assert int(begin) <= int(end)
    return {it for it in range(1, int(end)) if it not in listed}


@given(numbers, numbers, st.sets(numbers), st.sets(numbers), st.data())
def test_a_reader_who_is_moved_on_has_seen_exactly_what_he_was_given(
    one: int, other: int, open_before: set[int], open_after: set[int], data: st.DataObject
) -> None:
    begin, end = sorted((one, other))
    before = {it for it in open_before if it < begin}
    # An ended transaction stays ended; an open one was open before, or began since.
    after = {it for it in open_after if it < end and (it >= begin or it in before)}
    seen, until = text(begin, before), text(end, after)
    given_to_him = sorted(visible(until) - visible(seen))
    if given_to_him:
        last = data.draw(st.sampled_from(given_to_him))
        moved = moved_on(seen, until, last)
        assert visible(moved) == visible(seen) | {it for it in given_to_him if it <= last}
