"""How long to wait before something is tried again. Pure: what varies is handed in."""

from __future__ import annotations

from dataclasses import dataclass

# Waits stop growing after so many tries, whatever `longest` says: powers must not overflow.
_MOST_DOUBLINGS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """Waits that grow with each try, in seconds.

    The first is `first`, each next one `factor` times longer, none longer than `longest`; `jitter`
    is the share by which a wait is then made shorter or longer, so that many do not try at once.
    """

    first: float
    longest: float
    factor: float = 2.0
    jitter: float = 0.0

    def wait(self, tries: int, at: float = 0.5) -> float:
        """Seconds to wait after try number `tries` (from 1 on).

        `at` in [0, 1) is the place within the jitter: `random.random()`, or a share of its own where the same
        question must get the same answer; 0.5 is the middle.
        """
        grown = self.first * self.factor ** min(max(tries - 1, 0), _MOST_DOUBLINGS)
        return min(self.longest, grown) * (1 + self.jitter * (2 * at - 1))
