"""What routes ask for."""

from collections.abc import Callable, Iterator
from typing import Annotated

from fastapi import Depends, Header, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from influence.errors import NotFound
from service.access import Access, Seen
from service.attributor import Attributor
from service.chat.attributed import AttributedChat
from service.chat.chat import Chat
from service.exchanges import Exchanges
from service.keys import Scope
from service.ledger.ledger import Ledger
from service.ledger.recorded import Recorded, Recording
from service.rates import Rates
from service.versions import ServedVersions

# For the OpenAPI document; the key itself has been checked before (`api.authentication`).
_BEARER = HTTPBearer(
    auto_error=False, description="An API key, unless the server runs with --no-auth."
)
_Declared = Annotated[HTTPAuthorizationCredentials | None, Security(_BEARER)]


def _attributor(request: Request) -> Attributor:
    return request.app.state.attributor


def _request_id(request: Request) -> str:
    return request.state.request_id


def with_scope(scope: Scope) -> Callable[[Request, _Declared], Access]:
    """A dependency: the caller, if its key has the scope; else 403."""

    def caller(request: Request, _declared: _Declared) -> Access:
        access: Access = request.state.access
        access.require(scope)
        return access

    return caller


ReaderDep = Annotated[Access, Depends(with_scope("read"))]
WriterDep = Annotated[Access, Depends(with_scope("write"))]
PublicAttributorDep = Annotated[Attributor, Depends(_attributor)]


RequestIdDep = Annotated[str, Depends(_request_id)]


def _seen(request: Request, attributor: PublicAttributorDep, access: ReaderDep) -> Seen:
    state = request.app.state
    recording: Recording | None = state.recording
    # Inside: an entry has the totals of all owners, whichever of them the caller may see.
    recorded = attributor if recording is None else Recorded(attributor, recording, access.name)
    return Seen(recorded, access, hidden=state.hidden, metrics=state.metrics)


def _rates(request: Request) -> Rates:
    return request.app.state.rates


def _versions(request: Request) -> ServedVersions:
    versions: ServedVersions | None = request.app.state.versions
    if versions is None:
        raise NotFound(
            "This server has no index of its own; workers answer for it, and follow theirs. Use "
            "`whence remove` and `whence rollback` where the index is kept."
        )
    return versions


def _administrator(
    request: Request,
    request_id: RequestIdDep,
    access: Annotated[Access, Depends(with_scope("admin"))],
) -> Iterator[Access]:
    what = f"{request.method} {request.url.path}"
    with request.app.state.audit.action(access.name, what, request_id=request_id):
        yield access


def _timeout_s(
    request: Request,
    x_request_timeout_ms: Annotated[
        int | None,
        Header(
            ge=1,
            description=(
                "Give up after so many milliseconds, with 504; never later than the server's own "
                "WHENCE_REQUEST_TIMEOUT_S."
            ),
            examples=[20_000],
        ),
    ] = None,
) -> float:
    longest: float = request.app.state.request_timeout_s
    return longest if x_request_timeout_ms is None else min(x_request_timeout_ms / 1e3, longest)


def _chat(request: Request) -> Chat:
    chat: Chat | None = request.app.state.chat
    if chat is None:
        raise NotFound(
            "This server does not chat: its workers have the model, or it was told to write no "
            "answers at once. Set WHENCE_CHAT_UPSTREAM to a server that writes them."
        )
    return chat


def _ledger(request: Request) -> Ledger:
    recording: Recording | None = request.app.state.recording
    if recording is None:
        raise NotFound("This server keeps no ledger. Serve with WHENCE_LEDGER_URL.")
    return recording.ledger


def _exchanges(request: Request) -> Exchanges:
    return request.app.state.exchanges


RatesDep = Annotated[Rates, Depends(_rates)]
VersionsDep = Annotated[ServedVersions, Depends(_versions)]
AttributorDep = Annotated[Seen, Depends(_seen)]
TimeoutDep = Annotated[float, Depends(_timeout_s)]
ExchangesDep = Annotated[Exchanges, Depends(_exchanges)]
LedgerDep = Annotated[Ledger, Depends(_ledger)]
ChatDep = Annotated[Chat, Depends(_chat)]


def _attributed_chat(
    chat: ChatDep,
    attributor: AttributorDep,
    exchanges: ExchangesDep,
    access: ReaderDep,
    timeout_s: TimeoutDep,
) -> AttributedChat:
    return AttributedChat(chat, attributor, exchanges, access, timeout_s=timeout_s)


AttributedChatDep = Annotated[AttributedChat, Depends(_attributed_chat)]
# Asks for the scope admin, and writes to the audit log what is done with it.
AdministratorDep = Annotated[Access, Depends(_administrator)]
