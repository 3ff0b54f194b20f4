"""Documents that were sent to be added: a folder in which they wait, and what became of them.

    <id>.request.json    the documents, on the disk before they are acknowledged
    <id>.outcome.json    what became of them; the request is then taken away

Whoever serves may write requests; one process at a time, beside the index, carries them out
(`service.adding`). Importing this module loads neither torch nor faiss.
"""

import re
import secrets
from collections.abc import Collection
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from influence.atomic import storage_errors, write_bytes
from influence.errors import Forbidden, NotFound
from service.sent import Addition, AdditionRequest

_REQUEST, _OUTCOME = ".request.json", ".outcome.json"
_ID = re.compile(r"[0-9]{20}-[0-9a-f]{8}")
_REMEMBERED = 1_000  # outcomes; the oldest go


class Kept(BaseModel):
    """What is on the disk of an addition that waits."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    by: str
    request: AdditionRequest


class KeptOutcome(BaseModel):
    """What is on the disk of one that is over."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    by: str
    addition: Addition


class Additions:
    """The folder; for several processes.

    Raises:
        StorageFull: It cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with storage_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)

    def accept(
        self, request: AdditionRequest, *, by: str, owners: Collection[str] | None
    ) -> Addition:
        """Keep documents; they are on the disk when this returns.

        Args:
            request: The documents.
            by: Name of the caller's key, which may ask for the state.
            owners: Whose documents the caller may add; None: anybody's.

        Raises:
            Forbidden: Some are of other owners, or would replace documents of others.
            StorageFull: They cannot be kept.
        """
        if owners is not None:
            if request.replace:
                raise Forbidden(
                    "This key is for the documents of its owners alone, and `replace` could take "
                    "the place of another's. Add them under new ids, or use another key."
                )
            others = {document.owner for document in request.documents} - set(owners)
            if others:
                raise Forbidden(
                    f"This key adds documents of {', '.join(sorted(owners))} alone, and some are "
                    "of others or of nobody. Name the owner of each, or use another key."
                )
        # Names sort by the time of their coming, which is the order in which they are added.
        moment = int(1e6 * datetime.now(UTC).timestamp())
        name = f"{moment:020d}-{secrets.token_hex(4)}"
        content = Kept(by=by, request=request).model_dump_json(exclude_none=True)
        write_bytes(self._path(name, _REQUEST), content.encode())
        return Addition(id=name, state="waiting", documents=len(request.documents))

    def addition(self, name: str, *, by: str) -> Addition:
        """What has become of an addition.

        Raises:
            NotFound: There is none of this name that the caller asked for.
        """
        if _ID.fullmatch(name):  # by name, never joined to a path before it is known to be one
            for path, read in (
                (self._path(name, _OUTCOME), self._outcome),
                (self._path(name, _REQUEST), self._waiting),
                (self._path(name, _OUTCOME), self._outcome),  # it ended in between
            ):
                if path.is_file() and (found := read(name, by)) is not None:
                    return found
        raise NotFound(
            f"There is no addition {name[:80]!r} of this key. Of those that are over, the last "
            f"{_REMEMBERED:,} are remembered."
        )

    def next(self) -> str | None:
        """The addition that has waited longest; None: none waits."""
        names = sorted(path.name for path in self.folder.glob(f"*{_REQUEST}"))
        return names[0].removesuffix(_REQUEST) if names else None

    def kept(self, name: str) -> Kept:
        """An addition that waits."""
        return Kept.model_validate_json(self._path(name, _REQUEST).read_bytes())

    def end(self, name: str, *, version: str | None = None, detail: str | None = None) -> None:
        """Note that an addition is in a version, or why it failed.

        Raises:
            StorageFull: It cannot be noted; then it goes on waiting.
        """
        kept = self.kept(name)
        addition = Addition(
            id=name,
            state="done" if detail is None else "failed",
            documents=len(kept.request.documents),
            version=version,
            detail=detail,
        )
        outcome = KeptOutcome(by=kept.by, addition=addition)
        write_bytes(self._path(name, _OUTCOME), outcome.model_dump_json().encode())
        self._path(name, _REQUEST).unlink(missing_ok=True)
        for old in sorted(self.folder.glob(f"*{_OUTCOME}"))[:-_REMEMBERED]:
            old.unlink(missing_ok=True)

    def _outcome(self, name: str, by: str) -> Addition | None:
        kept = KeptOutcome.model_validate_json(self._path(name, _OUTCOME).read_bytes())
        return kept.addition if kept.by == by else None

    def _waiting(self, name: str, by: str) -> Addition | None:
        try:
            kept = self.kept(name)
        except FileNotFoundError:  # it has just ended
            return None
        count = len(kept.request.documents)
        return Addition(id=name, state="waiting", documents=count) if kept.by == by else None

    def _path(self, name: str, suffix: str) -> Path:
        return self.folder / f"{name}{suffix}"
