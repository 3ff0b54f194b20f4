"""The versions of the index that is served: what there is, which one answers, and the next one.

A server follows `CURRENT`, whoever wrote it: the new version is opened and warmed beside the one
that answers and takes its place between two requests (`service.local`). What an administrator asks
for here changes the folder, so that every other server of it follows as well. Importing this module
loads neither torch nor faiss.
"""

import asyncio
import logging
import time
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

from influence.errors import AttributionError, IndexUnavailable, InvalidInput, NotFound
from influence.manifest import MANIFEST, read_manifest
from influence.remote import Remote, is_url
from influence.removal import Selection, remove_documents
from influence.retention import roll_back
from influence.store import IndexReader
from influence.transfer import local_index
from influence.versions import VERSIONS, current_version, version_names
from service.local import LocalAttributor

if TYPE_CHECKING:
    from service.engine import Engine

log = logging.getLogger(__name__)

_RETRY_S = 30.0  # a version that cannot be opened is tried again so often, as that may cost much


class _Told(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class IndexVersion(_Told):
    """A version of the index."""

    id: str = Field(description="Name of the version.", examples=["000001-0a1b2c3d4e5f"])
    documents: int | None = Field(
        description="Number of documents; null: its manifest cannot be read.", examples=[412]
    )
    passages: int | None = Field(description="Number of passages, likewise.", examples=[518])
    current: bool = Field(description="Servers that start now open it.", examples=[True])
    served: bool = Field(description="This server answers from it.", examples=[True])


class IndexVersions(_Told):
    """The versions of the index that is served."""

    index: str = Field(description="Name of the index.", examples=["library"])
    versions: tuple[IndexVersion, ...] = Field(description="The oldest first.")


class DocumentRemoved(_Told):
    """A document that no answer has in it any more."""

    id: str = Field(description="Id of the document.", examples=["factbook/egypt"])
    version: str = Field(
        description="The version without it, which is served.", examples=["000002-1b2c3d4e5f60"]
    )
    passages: int = Field(description="Passages that went with it.", examples=[3])


class ServedVersions:
    """Follows an index, and changes it for administrators.

    Args:
        location: Folder or URL of the index.
        attributor: Answers from it.
        follow_s: How often to look whether another version is current.
    """

    def __init__(
        self, location: Path | str, attributor: LocalAttributor, *, follow_s: float
    ) -> None:
        self._location = location
        self._attributor = attributor
        self._follow_s = follow_s
        self._one_at_a_time = asyncio.Lock()
        self._ending = asyncio.Event()
        self._following: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to follow; returns at once."""
        self._following = asyncio.create_task(self._follow())

    async def close(self) -> None:
        """Stop following; a version that is being opened is finished first."""
        self._ending.set()
        if self._following is not None:
            await self._following

    async def listed(self) -> IndexVersions:
        """All versions, the oldest first.

        Raises:
            NotReady: Loading or draining.
            InvalidInput: The index is at a URL.
            IndexUnavailable: There is no index any more.
        """
        served = self._attributor.serving.index
        versions = await asyncio.to_thread(_listed, self._folder(), served.version)
        return IndexVersions(index=served.id, versions=versions)

    async def activate(self, version: str) -> IndexVersions:
        """Make a version current and answer from it; nothing is done if it is already.

        Raises:
            NotFound: There is no such version.
            IndexUnavailable: It is damaged, or of another model; the present one goes on answering.
            IndexBusy: Another change does not end.
            StorageFull: The folder cannot be written.
            InvalidInput: The index is at a URL.
            NotReady: Loading or draining.
        """
        folder = self._folder()
        async with self._one_at_a_time:
            await self._swap_to(folder, version)
        return await self.listed()

    async def remove(
        self, document_id: str, *, owners: Collection[str] | None = None
    ) -> DocumentRemoved:
        """Remove a document; no request that comes after this returns meets it.

        Args:
            document_id: Of the document.
            owners: Remove it only if it belongs to one of these.

        Raises:
            NotFound: No such document.
            IndexBusy: Another change does not end.
            IndexUnavailable: The version without it cannot be opened; the message says why.
            StorageFull: The folder cannot be written.
            InvalidInput: It is the last one, or the index is at a URL.
            NotReady: Loading or draining.
        """
        folder = self._folder()
        async with self._one_at_a_time:
            await self._catch_up()
            found = await self._attributor.document(document_id)
            if owners is not None and found.owner not in owners:
                raise NotFound(f"Document {document_id!r} is not in this index.")
            served = (await self._attributor.info()).index
            if len(found.passages) == served.passages:
                raise InvalidInput(
                    f"{document_id!r} has the last passages of the index, and an index without any "
                    "cannot be served. Stop the server, or add other documents first."
                )
            removed = await asyncio.to_thread(
                remove_documents, folder, Selection(documents=(document_id,))
            )
            await self._catch_up()
        return DocumentRemoved(id=document_id, version=removed.version, passages=removed.passages)

    def _folder(self) -> Path:
        if is_url(self._location):
            raise InvalidInput(
                "This server reads its index from a URL and changes nothing there. Change the "
                "index where it is kept and use `whence push`; the server follows."
            )
        return Path(self._location)

    async def _follow(self) -> None:
        failed, again_at = "", 0.0
        while not await self._is_over():
            if not self._attributor.ready:
                continue
            wanted = ""
            try:
                async with self._one_at_a_time:
                    wanted = await asyncio.to_thread(current_at, self._location)
                    if wanted != failed or time.monotonic() >= again_at:
                        await self._swap_if_other(wanted)
                        failed = ""
            except AttributionError as error:  # the present one goes on
                failed, again_at = wanted, time.monotonic() + _RETRY_S
                log.warning("%s is not served: %s", wanted or self._location, error)
            except Exception:  # a bug in one version must not end the following of later ones
                failed, again_at = wanted, time.monotonic() + _RETRY_S
                log.exception("%s is not served", wanted or self._location)

    async def _is_over(self) -> bool:
        try:
            await asyncio.wait_for(self._ending.wait(), self._follow_s)
        except TimeoutError:
            return False
        return True

    async def _catch_up(self) -> None:
        await self._swap_if_other(await asyncio.to_thread(current_at, self._location))

    async def _swap_if_other(self, version: str) -> None:
        if version != self._attributor.serving.index.version:
            await self._attributor.swap(self._open_current)

    def _open_current(self, present: "Engine") -> "Engine":
        return present.over(IndexReader.open(local_index(self._location)))

    async def _swap_to(self, folder: Path, version: str) -> None:
        # By name, never joined to a path before it is known.
        if version not in await asyncio.to_thread(version_names, folder):
            raise NotFound(
                f"The index has no version {version[:80]!r}. GET /indexes lists those it has."
            )
        if version != self._attributor.serving.index.version:
            await self._attributor.swap(lambda present: _made_current(present, folder, version))
        elif version != await asyncio.to_thread(current_at, folder):
            await asyncio.to_thread(roll_back, folder, version)


def current_at(location: Path | str) -> str:
    """The version that is current in a folder or at a URL.

    Raises:
        IndexUnavailable: There is no index.
    """
    if is_url(location):
        return Remote(str(location)).current()
    return current_version(Path(location))


def _made_current(present: "Engine", folder: Path, version: str) -> "Engine":
    """Opened before it is current: what cannot be opened never is."""
    engine = present.over(IndexReader.open(folder, version))
    try:
        roll_back(folder, version)
    except BaseException:  # whatever it is, nobody else holds this engine
        engine.close()
        raise
    return engine


def _listed(folder: Path, served: str) -> tuple[IndexVersion, ...]:
    current = current_version(folder)
    found = []
    for name in version_names(folder):
        try:
            corpus = read_manifest(folder / VERSIONS / name / MANIFEST).corpus
        except IndexUnavailable as error:  # damaged, or cleared away in this moment
            log.warning("%s cannot be read: %s", name, error)
            corpus = None
        found.append(
            IndexVersion(
                id=name,
                documents=None if corpus is None else corpus.documents,
                passages=None if corpus is None else corpus.passages,
                current=name == current,
                served=name == served,
            )
        )
    return tuple(found)
