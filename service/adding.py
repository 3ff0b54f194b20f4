"""Carries additions out (`service.additions`), one after the other, by a command beside the index.

The command is `whence add`, in a process of its own: it loads the model a second time, so that the
requests of others go on meanwhile, and it continues where it was interrupted. Servers follow the
index as after any other change. Importing this module loads neither torch nor faiss.
"""

import asyncio
import logging
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from influence.errors import AttributionError
from influence.lock import FileLock, sole_writer
from service.additions import Additions

log = logging.getLogger(__name__)

_LOCK = ".adding.lock"
_LOOK_S = 1.0
_RETRY_S = 30.0
_MAX_DETAIL = 2_000

# Corpus and whether its documents replace others -> what to run; it prints the new version.
Command = Callable[[Path, bool], Sequence[str]]


class Adder:
    """Adds until it is told to stop; of several beside one folder, one works.

    Args:
        additions: The folder.
        index_dir: Of the index; while somebody else builds on it, additions wait.
        command: Adds a corpus.
    """

    def __init__(self, additions: Additions, index_dir: Path, command: Command) -> None:
        self._additions = additions
        self._index_dir = index_dir
        self._command = command
        self._working: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin; returns at once."""
        self._working = asyncio.create_task(self._work())

    async def close(self) -> None:
        """Stop; what is being added goes on waiting, and the next to start continues it."""
        if self._working is not None:
            self._working.cancel()
            await asyncio.gather(self._working, return_exceptions=True)

    async def _work(self) -> None:
        lock = FileLock(self._additions.folder / _LOCK)
        try:
            while not lock.try_acquire():
                await asyncio.sleep(_LOOK_S)
            while True:
                name = await asyncio.to_thread(self._additions.next)
                pause_s = _LOOK_S
                if name is not None:
                    try:
                        await self._add(name)
                        continue
                    except (OSError, AttributionError) as error:
                        log.warning("addition %s waits: %s", name, error)
                        pause_s = _RETRY_S
                await asyncio.sleep(pause_s)
        finally:
            lock.close()

    async def _add(self, name: str) -> None:
        kept = await asyncio.to_thread(self._additions.kept, name)
        with sole_writer(self._index_dir):  # or it waits
            pass
        with tempfile.TemporaryDirectory(prefix="whence-add-") as folder:
            # The same name and content each time, by which `whence add` knows what it had begun.
            corpus = Path(folder) / f"{name}.jsonl"
            lines = (one.model_dump_json(exclude_none=True) for one in kept.request.documents)
            corpus.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
            status, said, complaint = await _run(self._command(corpus, kept.request.replace))
        if status == 0:
            version = _last_line(said)
            log.info("addition %s is in version %s", name, version)
            await asyncio.to_thread(self._additions.end, name, version=version)
            return
        detail = _last_line(complaint).removeprefix("error: ")[:_MAX_DETAIL]
        log.warning("addition %s failed with status %d: %s", name, status, detail)
        await asyncio.to_thread(
            self._additions.end, name, detail=detail or f"It ended with status {status}."
        )


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[-1]


async def _run(command: Sequence[str]) -> tuple[int, str, str]:
    """Status, stdout and stderr; the process is ended with the call."""
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        said, complaint = await process.communicate()
    except BaseException:  # cancelled, or interrupted: the process must not outlive its caller
        with suppress(ProcessLookupError):
            process.terminate()
        await process.wait()
        raise
    assert process.returncode is not None
    return process.returncode, said.decode(errors="replace"), complaint.decode(errors="replace")
