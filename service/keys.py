"""API keys: one small file of hashes, which says who may do what, and until when.

A key is `whence_<id>_<secret>`. Its secret is 256 random bits, so nobody finds it by trying and one
sha256 keeps it at rest; a slow hash, which a password would need, would buy nothing and cost every
request its time. The file is JSON and is replaced whole: every replica can read the same one,
mounted as a secret too, and what `whence keys` changed holds from the next request on.

Importing this module loads neither torch nor faiss.
"""

import fcntl
import hashlib
import hmac
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from influence.atomic import storage_errors, write_bytes
from influence.errors import InvalidInput, KeysUnavailable, NotFound, Unauthenticated
from service.schemas import MAX_FILTER_VALUES, Name
from service.watched import WatchedFile

Scope = Literal["read", "write", "admin"]

_PREFIX = "whence"
_REFUSED = "Name a valid one as `Authorization: Bearer KEY`; `whence keys create` makes them."


class Key(BaseModel):
    """What is kept of a key; the key itself is not."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(pattern="^[0-9a-f]{12}$")
    name: str = Field(min_length=1, max_length=200)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    scopes: tuple[Scope, ...] = Field(min_length=1)
    created: AwareDatetime
    expires: AwareDatetime | None = None
    revoked: AwareDatetime | None = None
    owners: tuple[Name, ...] | None = Field(None, min_length=1, max_length=MAX_FILTER_VALUES)
    requests_per_minute: Annotated[int, Field(ge=1)] | None = None

    def state(self, now: datetime) -> Literal["valid", "expired", "revoked"]:
        """Whether it may still be used at a moment."""
        if self.revoked is not None:
            return "revoked"
        return "expired" if self.expires is not None and self.expires <= now else "valid"


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    format: Literal[1] = 1
    keys: tuple[Key, ...] = ()


def read_keys(path: Path) -> tuple[Key, ...]:
    """All keys of a file, the oldest first.

    Raises:
        KeysUnavailable: It is missing, unreadable or no such file.
    """
    try:
        return _File.model_validate_json(path.read_bytes()).keys
    except FileNotFoundError as error:
        raise KeysUnavailable(
            f"There is no file of keys at {path}. Make a first key: "
            f"`whence keys create --file {path} --name NAME`."
        ) from error
    except (OSError, ValidationError) as error:
        raise KeysUnavailable(
            f"The file of keys {path} cannot be read: {str(error).splitlines()[0]}. Put back the "
            "one that `whence keys` wrote."
        ) from error


def create_key(
    path: Path,
    *,
    name: str,
    scopes: frozenset[Scope],
    now: datetime,
    expires: datetime | None = None,
    owners: tuple[str, ...] | None = None,
    requests_per_minute: int | None = None,
) -> tuple[Key, str]:
    """Add a key to a file, which is made where there is none; the key's words are told only here.

    Raises:
        InvalidInput: A value out of bounds.
        KeysUnavailable: The file cannot be read.
        StorageFull: It cannot be written.
    """
    secret = secrets.token_urlsafe(32)
    try:
        key = Key(
            id=secrets.token_hex(6),
            name=name,
            sha256=_digest(secret),
            scopes=tuple(sorted(scopes)),
            created=now,
            expires=expires,
            owners=owners,
            requests_per_minute=requests_per_minute,
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise InvalidInput(
            f"The key's {first['loc'][0]} is {first['input']!r}: {first['msg']}. Correct it."
        ) from error
    with _writing(path):
        keys = read_keys(path) if path.exists() else ()
        _write(path, (*keys, key))
    return key, f"{_PREFIX}_{key.id}_{secret}"


def revoke_key(path: Path, key_id: str, *, now: datetime) -> Key:
    """Make a key worthless; it stays in the file, so that its id still has a name.

    Raises:
        NotFound: No key of this id.
        KeysUnavailable: The file cannot be read.
        StorageFull: It cannot be written.
    """
    with _writing(path):
        keys = {key.id: key for key in read_keys(path)}
        if key_id not in keys:
            raise NotFound(f"There is no key {key_id!r} in {path}. `whence keys list` names them.")
        if keys[key_id].revoked is None:
            keys[key_id] = keys[key_id].model_copy(update={"revoked": now})
            _write(path, tuple(keys.values()))
    return keys[key_id]


class KeyRing:
    """The keys of a file, read again when it has changed; for several threads.

    Raises:
        KeysUnavailable: The file cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._file = WatchedFile(path, lambda path: {key.id: key for key in read_keys(path)})

    def authenticate(self, token: str) -> Key:
        """The key behind what a caller sent.

        Raises:
            Unauthenticated: It is none of the file, expired or revoked.
            KeysUnavailable: The file has become unreadable; then nobody is let in.
        """
        prefix, _, rest = token.partition("_")
        key_id, _, secret = rest.partition("_")
        key = self._file.content().get(key_id)
        # Always one comparison, in constant time, so that time tells nothing of ids and secrets.
        right = hmac.compare_digest(_digest(secret), key.sha256 if key else "0" * 64)
        if key is None or not right or prefix != _PREFIX:
            raise Unauthenticated(f"This API key is not valid here. {_REFUSED}", key_given=True)
        if (state := key.state(datetime.now(UTC))) != "valid":
            raise Unauthenticated(f"The API key {key_id} is {state}. {_REFUSED}", key_given=True)
        return key


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def _write(path: Path, keys: tuple[Key, ...]) -> None:
    write_bytes(path, _File(keys=keys).model_dump_json(indent=2).encode() + b"\n")


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """One writer at a time: two commands at once must not lose each other's key."""
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)
