"""Who has the model: one at a time, in the order in which they came.

Gradients are captured by hooks that stand on the model while a batch is computed; a forward pass of
somebody else would run into them. So a batch of attributions takes a turn, and an answer that is
being written takes one for every token, between which a batch comes in.
"""

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager


class Turns:
    """A lock that is handed on to whoever has waited longest.

    The lock of the standard library goes to whoever asks at the right moment: an answer that gives
    its turn up for the next token would have it back before anybody else woke.
    """

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._waiting: deque[threading.Lock] = deque()
        self._taken = False

    def take(self) -> None:
        """Wait for a turn."""
        with self._mutex:
            if not self._taken:
                self._taken = True
                return
            mine = threading.Lock()
            mine.acquire()
            self._waiting.append(mine)
        mine.acquire()  # until it is handed on

    def give(self) -> None:
        """Hand the turn on."""
        with self._mutex:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._taken = False

    @contextmanager
    def one(self) -> Iterator[None]:
        """A turn for a block."""
        self.take()
        try:
            yield
        finally:
            self.give()
