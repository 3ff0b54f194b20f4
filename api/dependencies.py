"""What routes ask for."""

from collections.abc import Awaitable, Callable, Iterator
from typing import Annotated

from fastapi import Depends, Header, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from api.tracing import Traced
from influence.errors import NotFound
from service.access import Access, Seen
from service.additions import Additions
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


async def _attributor(request: Request) -> Attributor:
    return request.app.state.attributor


async def _request_id(request: Request) -> str:
    return request.state.request_id


def with_scope(scope: Scope) -> Callable[[Request, _Declared], Awaitable[Access]]:
    """A dependency: the caller, if its key has the scope; else 403."""

    async def caller(request: Request, _declared: _Declared) -> Access:
        access: Access = request.state.access
        access.require(scope)
        return access

    return caller


ReaderDep = Annotated[Access, Depends(with_scope("read"))]
WriterDep = Annotated[Access, Depends(with_scope("write"))]
PublicAttributorDep = Annotated[Attributor, Depends(_attributor)]


RequestIdDep = Annotated[str, Depends(_request_id)]


async def _seen(request: Request, attributor: PublicAttributorDep, access: ReaderDep) -> Seen:
    state = request.app.state
    answers = attributor if state.tracer is None else Traced(attributor, state.tracer)
    recording: Recording | None = state.recording
    # Inside: an entry has the totals of all owners, whichever of them the caller may see.
    recorded = answers if recording is None else Recorded(answers, recording, access.name)
    return Seen(recorded, access, hidden=state.hidden, metrics=state.metrics)


async def _rates(request: Request) -> Rates:
    return request.app.state.rates


async def _additions(request: Request) -> Additions:
    additions: Additions | None = request.app.state.additions
    if additions is None:
        raise NotFound("This server takes no documents. Serve with WHENCE_ADDITIONS_DIR.")
    return additions


async def _versions(request: Request) -> ServedVersions:
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


async def _timeout_s(
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


async def _chat(request: Request) -> Chat:
    chat: Chat | None = request.app.state.chat
    if chat is None:
        raise NotFound(
            "This server does not chat: its workers have the model, or it was told to write no "
            "answers at once. Set WHENCE_CHAT_UPSTREAM to a server that writes them."
        )
    return chat


async def _ledger(request: Request) -> Ledger:
    recording: Recording | None = request.app.state.recording
    if recording is None:
        raise NotFound("This server keeps no ledger. Serve with WHENCE_LEDGER_URL.")
    return recording.ledger


async def _exchanges(request: Request) -> Exchanges:
    return request.app.state.exchanges


AdditionsDep = Annotated[Additions, Depends(_additions)]
RatesDep = Annotated[Rates, Depends(_rates)]
VersionsDep = Annotated[ServedVersions, Depends(_versions)]
AttributorDep = Annotated[Seen, Depends(_seen)]
TimeoutDep = Annotated[float, Depends(_timeout_s)]
ExchangesDep = Annotated[Exchanges, Depends(_exchanges)]
LedgerDep = Annotated[Ledger, Depends(_ledger)]
ChatDep = Annotated[Chat, Depends(_chat)]


async def _attributed_chat(
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
