"""The figures as Markdown: docs/performance.md and one line of the README are made here, so that both match them."""

from collections.abc import Iterator
from typing import Any

BEGIN, END = "<!-- bench -->", "<!-- /bench -->"
LINE_BEGIN, LINE_END = "<!-- bench-line -->", "<!-- /bench-line -->"


def summary_line(document: dict[str, Any]) -> str:
    """Return the line of the README: the burst of this engine, 500 orders at once."""
    one = document["burst"]["engine-500"]["median"]
    return (
        f"- `{document['command']}` ({document['at'][:10]}, {document['machine']['cores']} cores, one API process, one "
        f"worker): {one['completed_per_s']:,.0f} orders/s completed, {one['cpu_s_per_1000_total']:.2f} CPU seconds for "
        f"1,000 orders,\n  POST p50/p99 {_pair(one, 'post')} ms in a burst of {document['options']['orders']:,} orders."
    )


def performance_section(document: dict[str, Any]) -> str:
    """Return the generated section of docs/performance.md."""
    machine, options = document["machine"], document["options"]
    measured = "one round" if options["rounds"] == 1 else f"medians of {options['rounds']} rounds"
    head = (
        f"`{document['command']}` on {document['at'][:10]}: {machine['cores']} cores, {machine['system']}, "
        f"Python {machine['python']}, {machine['postgres']}, default durability; {measured}, each subject in turn. "
        "Load generator and paper chain share the machine; they are not in the CPU figures, except the chain in `up`, "
        "which runs it in its own process."
    )
    if again := document.get("again"):
        head += " Measured again later: " + ", ".join(f"{name} ({at[:16]})" for name, at in again.items()) + "."
    parts = [head]
    if "burst" in document:
        parts.append(_burst(document))
    parts += [part for name, make in _SECTIONS if (part := make(document.get(name)))]
    return "\n\n".join(parts)


def _burst(document: dict[str, Any]) -> str:
    options, burst = document["options"], document["burst"]
    columns = ("", "completed/s (min-max)", "accepted/s", "POST p50/p99 ms", "accept → confirmed p50/p99 ms")
    columns = (
        *columns,
        "CPU-s per 1,000",
        "peak MiB",
        "SQL statements · commits · Redis commands · KB of WAL · KB in the database, an order",
    )
    rows = []
    for it in burst.values():
        if "missing" in it:
            rows.append((it["title"], f"left out: {it['missing']}", *[""] * 6))
            continue
        one = it["median"]
        rates = [round_["completed_per_s"] for round_ in it["rounds"]]
        names = ("statements", "commits", "redis_commands", "wal_kb", "database_kb")
        asked = [one.get(f"{name}_per_order") for name in names]
        rows.append(
            (
                it["title"],
                f"{one['completed_per_s']:,.0f} ({min(rates):,.0f}-{max(rates):,.0f})",
                f"{one['accepted_per_s']:,.0f}",
                _pair(one, "post"),
                _pair(one, "confirm"),
                f"{one['cpu_s_per_1000_total']:.2f} ({_parts(one['cpu_s_per_1000'], '.2f')})",
                _parts(one["peak_memory_mib"], ".0f"),
                " · ".join("-" if value is None else f"{value:.2f}" for value in asked) if any(asked) else "-",
            )
        )
    title = f"**{options['orders']:,} orders over {options['connections']} connections, no venue delay**"
    ratios = _ratios(burst)
    return "\n\n".join([title, _table(columns, rows), *([ratios] if ratios else [])])


def _ratios(burst: dict[str, Any]) -> str:
    """Return this engine's ratio to each measured peer."""
    medians = {name: it["median"] for name, it in burst.items() if "median" in it}
    ours = medians.get("engine-500")
    if ours is None:
        return ""
    rows = []
    for name, it in medians.items():
        if name.startswith(("engine", "up")):
            continue
        mine = medians.get("engine-10", ours) if name.endswith("-10") else ours
        rows.append(
            (
                f"{burst[name]['title']}",
                f"{mine['completed_per_s'] / it['completed_per_s']:.2f} x",
                f"{mine['cpu_s_per_1000_total'] / it['cpu_s_per_1000_total']:.2f} x",
                f"{mine['post_p99_ms'] / it['post_p99_ms']:.2f} x",
            )
        )
    columns = ("order-engine at its best, to (at 10 at once: to it at 10)", "completed/s", "CPU an order", "POST p99")
    return _table(columns, rows) if rows else ""


def _watched(found: dict[str, Any] | None) -> str:
    if not found:
        return ""
    rows = []
    for it in found.values():
        if "missing" in it:
            rows.append((it["title"], f"left out: {it['missing']}", "", ""))
            continue
        one = it["median"]
        rows.append(
            (
                it["title"],
                f"{one['completed_per_s']:,.0f}",
                f"{one['cpu_s_per_1000_total']:.2f} ({_parts(one['cpu_s_per_1000'], '.2f')})",
                _pair(one, "post"),
            )
        )
    return "**A WebSocket for each order, read to its end before the next is posted**\n\n" + _table(
        ("", "orders/s", "CPU-s per 1,000", "POST p50/p99 ms"), rows
    )


def _watchers(found: dict[str, Any] | None) -> str:
    if not found:
        return ""
    medians = _medians(found)
    one = medians[0]
    rows = [
        (
            f"{it['watchers']:,.0f}",
            f"{it['posted_per_s']:,.0f}",
            _pair(it, "lag"),
            f"{it['messages'] / it['watchers']:,.0f} messages, {it['mib'] / it['watchers']:,.1f} MiB",
            _pair(it, "post"),
            _parts(it["cpu_s_per_1000"], ".2f"),
        )
        for it in medians
    ]
    columns = (
        "Watchers",
        "accepted/s",
        "lag p50/p99 ms",
        f"each got, for {one['orders']:,.0f} orders",
        "POST p50/p99 ms",
        "CPU-s per 1,000 orders",
    )
    return (
        f"**Watchers of all orders (`/v1/stream`) at {one['per_s']:,.0f} orders/s;** the lag is from an event's time "
        f"to its receipt, for the first event of each message; {one['checked']:,.0f} of the watchers read every event, "
        "and missed none\n\n" + _table(columns, rows)
    )


def _rates(found: dict[str, Any] | None) -> str:
    if not found:
        return ""
    medians = _medians(found)
    rows = [
        (
            it["title"],
            f"{it['per_s']:,}",
            f"{it['posted_per_s']:,.0f}",
            _pair(it, "post", ".1f"),
            _pair(it, "confirm"),
            f"{it['cpu_s_per_1000']:.2f}",
        )
        for it in medians
    ]
    columns = (
        "",
        "orders/s wanted",
        "accepted/s",
        "POST p50/p99 ms",
        "accept → confirmed p50/p99 ms",
        "CPU-s per 1,000",
    )
    return (
        "**Orders at a rate of their own, no venue delay; a latency counts from when the order was due** "
        "(at the low rates there is nothing to batch)\n\n" + _table(columns, rows)
    )


def _in_flight(found: dict[str, Any] | None) -> str:
    if not found:
        return ""
    (one,) = _medians(found)
    return (
        f"**Venue delays as shipped, {one['orders']:,} orders at once on one worker:** "
        f"{one['most_in_flight']:,} in flight; time of an order beyond its venue and its chain: "
        f"p50 {one['overhead_p50_ms']:,.0f} ms, p99 {one['overhead_p99_ms']:,.0f} ms; "
        f"peak memory {_parts(one['peak_memory_mib'], '.0f')} MiB."
    )


def _scale(found: dict[str, Any] | None) -> str:
    if not found:
        return ""
    medians = _medians(found)
    rows = [
        (
            it["title"],
            f"{it['completed_per_s']:,.0f}",
            f"{it['cpu_s_per_1000_total']:.2f}",
            _parts(it["cpu_s_per_1000"], ".2f"),
            _pair(it, "post"),
        )
        for it in medians
    ]
    return "**Several processes on this one machine**\n\n" + _table(
        ("", "completed/s", "CPU-s per 1,000", "by process", "POST p50/p99 ms"), rows
    )


def _slow_disk(found: dict[str, Any] | None) -> str:
    if not found:
        return ""
    medians = _medians(found)
    rows = [(it["title"], f"{it['completed_per_s']:,.0f}", _pair(it, "post"), _pair(it, "confirm")) for it in medians]
    return "**A disk that takes 5 ms longer for each flush** (`commit_delay`)\n\n" + _table(
        ("", "completed/s", "POST p50/p99 ms", "accept → confirmed p50/p99 ms"), rows
    )


def _growth(found: dict[str, Any] | None) -> str:
    return _beside_the_first("**As the tables grow**", "In the tables", found)


def _queues(found: dict[str, Any] | None) -> str:
    return _beside_the_first("**As the queue grows** (a worker alone; the orders are there already)", "Waiting", found)


def _beside_the_first(title: str, column: str, found: dict[str, Any] | None) -> str:
    if not found:
        return ""
    medians = _medians(found)
    first = medians[0]["cpu_s_per_1000_total"]
    rows = [
        (
            it["title"],
            f"{it['cpu_s_per_1000_total']:.2f}",
            f"{it['cpu_s_per_1000']['postgres']:.2f}",
            f"{it['cpu_s_per_1000_total'] / first:.2f} x",
            f"{it['completed_per_s']:,.0f}",
        )
        for it in medians
    ]
    columns = (column, "CPU-s per 1,000", "of it PostgreSQL", "to the first", "completed/s")
    return title + "\n\n" + _table(columns, rows)


def _pieces(found: dict[str, Any] | None) -> str:
    if not found:
        return ""
    rows = [
        (it["title"], f"{it['worker_us']:.0f}", "-" if it["postgres_us"] is None else f"{it['postgres_us']:.0f}")
        for it in _medians(found)
    ]
    title = "**Cost of single steps of an order,** 100 orders at a time, in µs of a processor"
    return title + "\n\n" + _table(("", "worker", "PostgreSQL"), rows)


def _statements(found: dict[str, Any] | None) -> str:
    if not found:
        return ""
    medians = _medians(found)
    rows = [(it["title"], f"{it['worker_us']:.0f}", f"{it['postgres_us']:.0f}") for it in medians]
    sums = [sum(it[name] for it in medians) for name in ("worker_us", "postgres_us")]
    rows.append(("together", *(f"{it:.0f}" for it in sums)))
    title = "**Cost of an order whose statements carry one order each,** in µs of a processor"
    return title + "\n\n" + _table(("", "worker", "PostgreSQL"), rows)


_SECTIONS = (
    ("watched", _watched),
    ("watchers", _watchers),
    ("rates", _rates),
    ("in_flight", _in_flight),
    ("scale", _scale),
    ("slow_disk", _slow_disk),
    ("growth", _growth),
    ("queues", _queues),
    ("pieces", _pieces),
    ("statements", _statements),
)


def _medians(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the figures of everything that could be measured, each with its title."""
    return [it["median"] | {"title": it["title"]} for it in found.values() if "median" in it]


def _pair(figures: dict[str, Any], name: str, shape: str = ",.0f") -> str:
    return f"{figures[f'{name}_p50_ms']:{shape}}/{figures[f'{name}_p99_ms']:{shape}}"


def _parts(figures: dict[str, float], shape: str) -> str:
    return ", ".join(f"{name} {value:{shape}}" for name, value in figures.items())


def _table(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    return "\n".join(_lines(columns, rows))


def _lines(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> Iterator[str]:
    yield f"| {' | '.join(columns)} |"
    yield f"|{'---|' * len(columns)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"
