"""How often each key has asked: a window of a minute that slides.

Importing this module loads neither torch nor faiss.
"""

import math
import time
from collections import defaultdict, deque
from collections.abc import Callable

from influence.errors import RateLimited

WINDOW_S = 60.0


class SlidingWindow:
    """Exact for one process: the moments of the last minute's requests, by name.

    A refused request does not count, so that a client which keeps asking is let in as soon as one
    that waits. It needs no more memory than the limits admit.

    Args:
        clock: Seconds from any beginning, never backwards.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._moments: defaultdict[str, deque[float]] = defaultdict(deque)

    def count(self, name: str, per_minute: int | None) -> None:
        """Count a request of ``name``; None: as many as it likes, and nothing is kept.

        Raises:
            RateLimited: It has had ``per_minute`` of them within the last minute.
        """
        if per_minute is None:
            return
        now = self._clock()
        moments = self._moments[name]
        while moments and moments[0] <= now - WINDOW_S:
            moments.popleft()
        if len(moments) >= per_minute:
            free_at = moments[len(moments) - per_minute] + WINDOW_S
            raise RateLimited(per_minute=per_minute, retry_after_s=max(1, math.ceil(free_at - now)))
        moments.append(now)
