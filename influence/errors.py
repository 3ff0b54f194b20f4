"""Every error Whence raises on purpose: one sentence on what happened, one on what to do.

    AttributionError
    ├── InvalidInput            the caller sent something that cannot be attributed
    │   ├── CorpusError         a corpus, or one record of it, cannot be read
    │   ├── QueryTooLong        prompt + response exceed the model's context
    │   ├── Unsupported         a parameter of a chat that this server does not know
    │   └── UnknownLayers       a layer pattern matches nothing
    ├── NotFound                a document or index that does not exist
    ├── ModelUnavailable        a model folder cannot be loaded
    ├── IndexUnavailable        an index cannot be opened
    │   ├── IndexCorrupt        a file is missing, truncated or altered
    │   ├── IndexTooNew         written by a newer format version
    │   ├── StorageUnreachable  the URL of an index cannot be read or written
    │   └── IndexMismatch       built from another model or tokenizer
    ├── ServiceUnavailable      the service cannot answer now
    │   ├── NotReady            it is loading, or shutting down
    │   ├── Overloaded          too many requests are waiting
    │   │   └── TooManyAnswers  as many answers are being written as may be at once
    │   ├── UpstreamUnavailable the server that writes the answers cannot be reached
    │   ├── RateLimited         a key has asked more often than it may
    │   └── DeadlineExceeded    the answer took longer than the caller would wait
    ├── UpstreamRefused         the server that writes the answers refused, in its own words
    ├── Unauthenticated         no API key, or one that is not valid
    ├── Forbidden               the key may not do this
    ├── KeysUnavailable         the file of API keys cannot be read
    ├── LedgerUnavailable       the ledger cannot be reached, read or written
    │   └── LedgerBroken        an entry was changed, moved or taken out
    ├── ListUnavailable         a list of what is withheld cannot be read
    ├── AddressUnavailable      the server cannot listen where it was told to
    ├── IndexBusy               another process is writing to the index
    ├── BuildConflict           an unfinished build with other settings is in the way
    ├── StorageFull             the disk is full, or the folder cannot be written
    ├── OutOfMemory             a single passage needs more memory than there is
    └── NumericalError          a gradient or a covariance is not finite

Importing this module loads neither torch nor faiss.
"""

from typing import Any


class AttributionError(Exception):
    """Base of every error raised on purpose; its message is fit for the person who asked."""


class InvalidInput(AttributionError):
    """The caller sent something that cannot be attributed."""


class CorpusError(InvalidInput):
    """A corpus, or one record of it, cannot be read; the message names file and line."""


class QueryTooLong(InvalidInput):
    """Prompt and response together exceed the model's context."""


class Unsupported(InvalidInput):
    """A chat asks for something that this server does not do; ``parameter`` names it."""

    def __init__(self, parameter: str, message: str) -> None:
        super().__init__(message)
        self.parameter = parameter


class UnknownLayers(InvalidInput):
    """A layer pattern matches no layer of the model."""


class NotFound(AttributionError):
    """A document or an index that does not exist."""


class ModelUnavailable(AttributionError):
    """A model folder cannot be loaded."""


class IndexUnavailable(AttributionError):
    """An index cannot be opened."""


class IndexCorrupt(IndexUnavailable):
    """A file that the manifest lists is missing, truncated or altered."""


class IndexTooNew(IndexUnavailable):
    """The index was written by a newer format version than this program reads."""


class StorageUnreachable(IndexUnavailable):
    """The URL of an index cannot be read or written."""


class IndexMismatch(IndexUnavailable):
    """The index was built from a model other than the one now loaded."""

    def __init__(self, *, index_dir: str, built_with: str, loaded: str) -> None:
        super().__init__(
            f"The index in {index_dir} was built from model {built_with}, but {loaded} is loaded; "
            "their gradients cannot be compared. Load the model of the index, or rebuild the index "
            f"with `whence index CORPUS --model {loaded} --out {index_dir}`."
        )


class ServiceUnavailable(AttributionError):
    """The service cannot answer now; ``retry_after_s`` says when to ask again, where known."""

    def __init__(self, message: str, *, retry_after_s: int | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class NotReady(ServiceUnavailable):
    """It is loading, or shutting down."""


class Overloaded(ServiceUnavailable):
    """Too many requests are waiting."""

    def __init__(self, *, waiting: int, retry_after_s: int) -> None:
        super().__init__(
            f"The queue is full: {waiting} requests are waiting for the model. Ask again in about "
            f"{retry_after_s} seconds.",
            retry_after_s=retry_after_s,
        )


class TooManyAnswers(Overloaded):
    """As many answers are being written as this server writes at once."""

    def __init__(self, *, at_once: int, retry_after_s: int) -> None:
        ServiceUnavailable.__init__(
            self,
            f"This server writes {at_once} answers at once, and all of them are under way. Ask "
            f"again in about {retry_after_s} seconds.",
            retry_after_s=retry_after_s,
        )


class UpstreamUnavailable(ServiceUnavailable):
    """The server that writes the answers cannot be reached, or does not speak as it should."""


class UpstreamRefused(AttributionError):
    """The server that writes the answers refused; ``status`` and ``body`` are its own."""

    def __init__(self, status: int, message: str, *, body: dict[str, Any]) -> None:
        super().__init__(message)
        self.status = status
        self.body = body


class RateLimited(ServiceUnavailable):
    """A key has asked more often than it may."""

    def __init__(self, *, per_minute: int, retry_after_s: int) -> None:
        super().__init__(
            f"This key may ask {per_minute} times a minute, and has. Ask again in {retry_after_s} "
            "seconds.",
            retry_after_s=retry_after_s,
        )


class Unauthenticated(AttributionError):
    """No API key, or one that is not valid; ``key_given`` tells the two apart."""

    def __init__(self, message: str, *, key_given: bool) -> None:
        super().__init__(message)
        self.key_given = key_given


class Forbidden(AttributionError):
    """The key may not do this; ``scope`` is the one that it would need, where that is it."""

    def __init__(self, message: str, *, scope: str | None = None) -> None:
        super().__init__(message)
        self.scope = scope


class KeysUnavailable(AttributionError):
    """The file of API keys cannot be read."""


class DeadlineExceeded(ServiceUnavailable):
    """The answer took longer than the caller would wait."""

    def __init__(self, *, timeout_s: float) -> None:
        super().__init__(
            f"The answer took longer than {timeout_s:g} seconds and was given up. Ask again when "
            "the server is less busy, ask for less, or send a longer X-Request-Timeout-Ms."
        )


class LedgerUnavailable(AttributionError):
    """The ledger cannot be reached, read or written."""


class LedgerBroken(LedgerUnavailable):
    """An entry of the ledger was changed, moved or taken out; the message says which."""


class ListUnavailable(AttributionError):
    """A list of what is withheld cannot be read; then nothing is shown."""


class AddressUnavailable(AttributionError):
    """The server cannot listen where it was told to."""


class IndexBusy(AttributionError):
    """Another process is writing to the index."""


class BuildConflict(AttributionError):
    """An unfinished build with other settings is in the way."""


class StorageFull(AttributionError):
    """The disk is full, or the folder cannot be written."""


class OutOfMemory(AttributionError):
    """A single passage needs more memory than there is."""


class NumericalError(AttributionError):
    """A gradient or a covariance is not finite."""
