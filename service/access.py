"""What a caller may do: scopes, and the owners whose documents it may see.

Importing this module loads neither torch nor faiss.
"""

from dataclasses import dataclass

from influence.errors import Forbidden, NotFound
from service.attributor import Answers
from service.hidden import Hidden
from service.keys import Key, Scope
from service.metrics import Metrics
from service.schemas import (
    AttributeRequest,
    AttributeResult,
    DocumentResult,
    Filter,
    ServiceInfo,
)


@dataclass(frozen=True)
class Access:
    """A caller: its name in the logs, its scopes, its owners (None: all), its rate (None: any)."""

    name: str
    scopes: frozenset[Scope]
    owners: frozenset[str] | None = None
    requests_per_minute: int | None = None

    @classmethod
    def of(cls, key: Key) -> "Access":
        """That of a key."""
        owners = None if key.owners is None else frozenset(key.owners)
        return cls(key.id, frozenset(key.scopes), owners, key.requests_per_minute)

    def require(self, scope: Scope) -> None:
        """Return if the caller has a scope.

        Raises:
            Forbidden: It has not.
        """
        if scope not in self.scopes:
            raise Forbidden(
                f"This needs the scope {scope}, and the key has {', '.join(sorted(self.scopes))}. "
                "Use another key.",
                scope=scope,
            )


EVERYTHING = Access("nobody", frozenset({"read", "write", "admin"}))


class Seen:
    """An attributor as one caller may see it: documents of its owners, nothing that is withheld.

    Owners' totals are exact sums over an owner's own documents, so leaving the others out changes
    none of them.
    """

    def __init__(
        self, attributor: Answers, access: Access, *, hidden: Hidden, metrics: Metrics
    ) -> None:
        self._attributor = attributor
        self._owners = access.owners
        self._hidden = hidden
        self._metrics = metrics

    async def attribute(self, request: AttributeRequest, *, request_id: str) -> AttributeResult:
        """See `service.attributor.Attributor`.

        Raises:
            Forbidden: The filter asks for documents of other owners alone.
        """
        owners = self._owners
        if owners is not None:
            narrowed = _narrowed(request.filter, owners)
            request = request.model_copy(update={"filter": narrowed})
        result = await self._attributor.attribute(request, request_id=request_id)
        self._metrics.answered(result)
        if owners is not None:
            own = tuple(share for share in result.owners if share.owner in owners)
            result = result.model_copy(update={"owners": own})
        return self._hidden.in_result(result)

    async def document(self, document_id: str) -> DocumentResult:
        """See `service.attributor.Attributor`; a document of others is as one that is not there."""
        found = await self._attributor.document(document_id)
        if self._owners is not None and found.owner not in self._owners:
            # In the words of `influence.store`: that others have it is not told either.
            raise NotFound(
                f"Document {document_id!r} is not in this index. `whence info` tells what it holds."
            )
        return self._hidden.in_document(found)

    async def info(self) -> ServiceInfo:
        """See `service.attributor.Attributor`."""
        return await self._attributor.info()


def _narrowed(wanted: Filter | None, owners: frozenset[str]) -> Filter:
    asked = (
        owners if wanted is None or wanted.owners is None else owners.intersection(wanted.owners)
    )
    if not asked:
        raise Forbidden(
            "The filter names owners whose documents this key may not see. Ask for those of the "
            "key, or give no filter."
        )
    return Filter(owners=tuple(sorted(asked)), sources=wanted.sources if wanted else None)
