"""The attributed model answers: in threads of this process, a token at a time, between batches.

Importing this module loads neither torch nor faiss.
"""

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, contextmanager
from typing import TYPE_CHECKING, Any

from influence.errors import NotFound, TooManyAnswers
from service.chat.chat import text_of
from service.chat.schemas import ChatRequest
from service.chat.supported import check_supported, conversation_of
from service.local import LocalAttributor

if TYPE_CHECKING:
    from service.chat.generation import Task, Written
    from service.engine import Engine

_FIRST_GUESS_S = 5.0
_MEMORY = 0.2  # weight of the newest answer in the measured seconds an answer


class LocalChat:
    """Answers with the model of an attributor (`service.chat.chat.Chat`).

    Args:
        attributor: Has the model.
        at_once: Answers that are written at the same time; more are refused.
        max_tokens: Most tokens of an answer, whatever is asked.
    """

    def __init__(self, attributor: LocalAttributor, *, at_once: int, max_tokens: int) -> None:
        self._attributor = attributor
        self._at_once = at_once
        self._max_tokens = max_tokens
        self._threads = ThreadPoolExecutor(at_once, thread_name_prefix="chat")
        self._writing = 0
        self._seconds = _FIRST_GUESS_S
        self._since = int(time.time())

    async def stream(
        self, request: ChatRequest, *, request_id: str
    ) -> AsyncGenerator[dict[str, Any]]:
        """See `service.chat.chat.Chat`."""
        check_supported(request)
        conversation = conversation_of(request)
        with self._place() as engine:
            model = engine.info().model
            if request.model != model:
                raise NotFound(
                    f"There is no model {request.model[:200]!r} here; this server has {model!r}. "
                    "GET /v1/models lists it."
                )
            event = _events(request_id, model)
            task = await self._attributor.in_tokenizer(
                lambda: _task(request, conversation, engine, self._max_tokens)
            )
            yield event({"role": "assistant", "content": ""})
            async with aclosing(self._pieces(task, engine)) as pieces:
                async for piece in pieces:
                    if isinstance(piece, str):
                        yield event({"content": piece})
                        continue
                    yield event({}, finish_reason=piece.finish_reason)
                    if request.wants_usage or not request.streamed:
                        yield event(None, usage=_usage(task, piece))

    async def complete(self, request: ChatRequest, *, request_id: str) -> dict[str, Any]:
        """See `service.chat.chat.Chat`."""
        async with aclosing(self.stream(request, request_id=request_id)) as stream:
            events = [event async for event in stream]
        *answer, finish, last = events
        return {
            "id": last["id"],
            "object": "chat.completion",
            "created": last["created"],
            "model": last["model"],
            "choices": [
                {
                    "index": 0,
                    "message": {
                        "role": "assistant",
                        "content": "".join(map(text_of, answer)),
                        "refusal": None,
                    },
                    "logprobs": None,
                    "finish_reason": finish["choices"][0]["finish_reason"],
                }
            ],
            "usage": last["usage"],
        }

    async def models(self) -> dict[str, Any]:
        """See `service.chat.chat.Chat`."""
        served = await self._attributor.info()
        card = {"id": served.model, "object": "model", "created": self._since}
        return {"object": "list", "data": [{**card, "owned_by": "whence"}]}

    async def close(self) -> None:
        """End the threads; nobody's answer is under way any more."""
        await asyncio.to_thread(self._threads.shutdown, wait=True)

    async def _pieces(self, task: "Task", engine: "Engine") -> "AsyncGenerator[str | Written]":
        """Pieces of text, then how it ended; closing the generator ends the writing."""
        loop = asyncio.get_running_loop()
        pieces: asyncio.Queue[str | None] = asyncio.Queue()
        given_up = threading.Event()
        begun = time.monotonic()

        def tell(piece: str) -> None:
            loop.call_soon_threadsafe(pieces.put_nowait, piece)

        work = loop.run_in_executor(self._threads, _write, task, engine, tell, given_up)
        work.add_done_callback(lambda _: pieces.put_nowait(None))
        try:
            while (piece := await pieces.get()) is not None:
                yield piece
            yield work.result()
            self._seconds += _MEMORY * (time.monotonic() - begun - self._seconds)
        finally:
            given_up.set()
            await asyncio.wait([work])  # the engine stays open until its last token

    @contextmanager
    def _place(self) -> "Iterator[Engine]":
        if self._writing >= self._at_once:
            raise TooManyAnswers(at_once=self._at_once, retry_after_s=max(1, round(self._seconds)))
        self._writing += 1
        try:
            with self._attributor.engine_in_use() as engine:
                yield engine
        finally:
            self._writing -= 1


def _events(request_id: str, model: str) -> Any:
    common = {
        "id": f"chatcmpl-{request_id}",
        "object": "chat.completion.chunk",
        "created": int(time.time()),
        "model": model,
    }

    def event(
        delta: dict[str, str] | None, *, finish_reason: str | None = None, usage: Any = None
    ) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        choices = [] if delta is None else [choice]
        return {**common, "choices": choices, **({} if usage is None else {"usage": usage})}

    return event


def _usage(task: "Task", written: "Written") -> dict[str, int]:
    prompt, answer = len(task.prompt_ids), written.tokens
    return {
        "prompt_tokens": prompt,
        "completion_tokens": answer,
        "total_tokens": prompt + answer,
    }


def _task(request: ChatRequest, conversation: Any, engine: "Engine", max_tokens: int) -> "Task":
    from service.chat.generation import task_of

    return task_of(request, conversation, engine.loaded, max_tokens=max_tokens)


def _write(task: "Task", engine: "Engine", tell: Any, given_up: threading.Event) -> "Written":
    from service.chat.generation import write_answer

    return write_answer(task, engine.loaded, engine.turns, tell=tell, given_up=given_up)
