"""Opening hours as people write them, as minutes of a day. Knows no clock; this module is no plugin of its own."""

from __future__ import annotations

import re

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DAY = 24 * 60  # minutes
TIMES = re.compile(r"(\d\d?):(\d\d) ?- ?(\d\d?):(\d\d)")
CLOSED = "closed"

Spans = tuple[tuple[int, int], ...]  # minutes of a day: from, to; beyond a day where it goes on after midnight


def days(name: str) -> list[int]:
    """The days of `mon`, `fri-mon` or `daily`, Monday is 0.

    Raises:
        ValueError: none of these.
    """
    first, _, last = ("mon-sun" if name == "daily" else name).lower().partition("-")
    if first not in DAYS or (last or first) not in DAYS:
        raise ValueError(f"day {name!r}: expected {', '.join(DAYS)}, two of them with `-` between, or daily")
    start, end = DAYS.index(first), DAYS.index(last or first)
    return [(start + i) % 7 for i in range((end - start) % 7 + 1)]


def spans(text: str | list[str]) -> Spans:
    """`10:00-18:00`, or several of them; an end that is not later is one of the next day.

    Raises:
        ValueError: no times of a day.
    """
    made = []
    for each in [text] if isinstance(text, str) else text:
        found = TIMES.fullmatch(each.strip())
        if found is not None:
            hours = [int(part) for part in found.groups()]
            start, end = hours[0] * 60 + hours[1], hours[2] * 60 + hours[3]
            if start < DAY and end <= DAY and max(hours[1], hours[3]) < 60:
                made.append((start, end if end > start else end + DAY))
                continue
        if each != CLOSED:
            raise ValueError(f"hours {each!r}: expected for instance 10:00-18:00, 20:00-02:00, or {CLOSED}")
    return tuple(made)
