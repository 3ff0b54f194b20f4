"""How long to go on trying: until a deadline, and never sooner than the server says.

Asking for an attribution changes nothing on the server, so asking again is always safe. Documents
that are sent may have been taken although no answer came; they are sent again only where it is
certain that they were not.
"""

import random
import time
from dataclasses import dataclass, field

from httpx2 import ConnectError, Response, TransportError

RETRIED = frozenset({429, 502, 503})  # not 504: the time that the caller allowed is over
_REFUSED = frozenset({429, 503})  # by the server itself, so nothing was done

_FIRST_WAIT_S = 0.25
_LONGEST_WAIT_S = 8.0


@dataclass
class Patience:
    """The time that one call has, over all its tries.

    Args:
        timeout_s: From now.
        retry: Whether there is more than one try.
        repeatable: Whether it may be sent again when it is not known what became of it.
    """

    timeout_s: float
    retry: bool = True
    repeatable: bool = True
    tries: int = 0
    _ends: float = field(init=False)

    def __post_init__(self) -> None:
        self._ends = time.monotonic() + self.timeout_s

    @property
    def left_s(self) -> float:
        """What is left of it; at least a millisecond, as long as anything is tried."""
        return max(self._ends - time.monotonic(), 0.001)

    def wait_s(self, response: Response | None, failure: TransportError | None) -> float | None:
        """How long to wait before the next try; None: not again.

        Args:
            response: What was answered; None: nothing was.
            failure: Why nothing was answered.
        """
        retried = RETRIED if self.repeatable else _REFUSED
        if not self.retry or (response is not None and response.status_code not in retried):
            return None
        if response is None and not self.repeatable and not isinstance(failure, ConnectError):
            return None
        told = None if response is None else retry_after_s(response)
        if told is not None:
            wait = float(told)
        else:
            # Spread out, so that those whom a restart threw out do not come back at once.
            longest = min(_FIRST_WAIT_S * 2**self.tries, _LONGEST_WAIT_S)
            wait = random.uniform(longest / 2, longest)
        self.tries += 1
        return wait if time.monotonic() + wait < self._ends else None


def retry_after_s(response: Response) -> int | None:
    """When to ask again, as the server says; None: it does not."""
    told = response.headers.get("retry-after", "")
    return int(told) if told.isascii() and told.isdigit() else None
