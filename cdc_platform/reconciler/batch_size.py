"""How many connectors are changed at once. Pure.

Each create costs at least two rebalances; requests that wait for one are
coalesced. So bounded batches with a settle between them beat both one by one
and all at once, and the right size follows from how long a group takes.
"""

from __future__ import annotations

# A batch that settles within this many seconds may grow.
QUICK = 8.0
# One that takes longer than this shrinks.
SLOW = 30.0
SMALLEST = 5


def next_size(size: int, seconds: float, largest: int) -> int:
    """The size of the next batch after one of `size` settled in `seconds`."""
    if seconds > SLOW:
        return max(SMALLEST, size // 2)
    if seconds < QUICK:
        return min(largest, size + max(1, size // 2))
    return min(size, largest)
