"""The chain: every entry's hash covers the entry and the hash before it.

    hash_n = sha256( hash_{n-1} ‖ canonical JSON of entry n ),        hash_0 = 32 zero bytes

so whoever knows the newest hash can tell whether any entry before it was changed, taken out or
moved. Totals are bytes and enter by their sha256. A text enters as a *commitment*, sha256 of a
random salt and the text's own sha256: with salt and text at hand it proves what was asked, without
the salt nobody can find it out by trying, and so both can be erased while the chain stays whole.
"""

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

Kind = Literal["owners", "attribution", "alias", "payout", "erasure"]

GENESIS = bytes(32)  # what the first entry stands on


@dataclass(frozen=True, slots=True)
class Pending:
    """What will be an entry once it has a place in the chain.

    Attributes:
        kind: What it records.
        key: Two entries of one key and one content are the same, delivered twice.
        time_us: When it happened, microseconds since 1970 (UTC).
        body: Canonical JSON; what is in it is decided by the kind.
        weight: Of an attribution: its usage, over the probability that it was recorded.
        owners: Of an attribution: sha256 of the body of the owners that its totals stand for.
        totals: Of an attribution: signed totals, in the order of those owners' names.
        salt: Of the commitment in the body; kept beside the chain, where it can be erased.
        text: What the commitment stands for, likewise; None where it is not to be kept.
        text_sha256: Of the text, which tells the same query asked again from another one.
    """

    kind: Kind
    key: str
    time_us: int
    body: str
    weight: float | None = None
    owners: str | None = None
    totals: bytes | None = None
    salt: bytes | None = None
    text: str | None = None
    text_sha256: str | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """One link of the chain, in the columns of its table.

    ``owner_set`` is the sequence of the entry that names its owners.
    """

    sequence: int
    kind: str
    key: str
    time_us: int
    body: str
    weight: float | None
    owner_set: int | None
    totals: bytes | None
    hash: bytes

    @property
    def content(self) -> dict[str, Any]:
        """The body, parsed."""
        return json.loads(self.body)


def entry_hash(
    previous: bytes,
    sequence: int,
    kind: str,
    key: str,
    time_us: int,
    body: str,
    weight: float | None,
    owner_set: int | None,
    totals: bytes | None,
) -> bytes:
    """The hash of an entry that stands on ``previous``."""
    totals_sha256 = None if totals is None else hashlib.sha256(totals).hexdigest()
    said = canonical([sequence, kind, key, time_us, body, weight, owner_set, totals_sha256])
    return hashlib.sha256(previous + said.encode("ascii")).digest()


def canonical(value: Any) -> str:
    """JSON in one way only: keys sorted, no spaces, ASCII, floats as their shortest digits.

    Raises:
        ValueError: A number that is not finite.
    """
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    )


def commitment(salt: bytes, text_sha256: str) -> str:
    """sha256 of a salt and the sha256 of a text, both in hexadecimal; in hexadecimal."""
    return hashlib.sha256(f"{salt.hex()}:{text_sha256}".encode("ascii")).hexdigest()


def sha256_of(text: str) -> str:
    """sha256 of canonical JSON, in hexadecimal."""
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def pack_totals(totals: np.ndarray) -> bytes:
    """Little-endian floats, of 4 bytes each where that loses nothing, else of 8."""
    short = totals.astype("<f4")
    return (short if np.array_equal(short, totals) else totals.astype("<f8")).tobytes()


def unpack_totals(packed: bytes, owners: int) -> np.ndarray:
    """The array that was packed, ``[owners]``.

    Raises:
        ValueError: The bytes are not that many floats.
    """
    if len(packed) not in (4 * owners, 8 * owners):
        raise ValueError(f"{len(packed)} bytes are no totals of {owners} owners.")
    return np.frombuffer(packed, dtype="<f4" if len(packed) == 4 * owners else "<f8")
