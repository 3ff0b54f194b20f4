"""Logs with the id of the request they belong to: a line for people, or a JSON object for machines.

A formatter of thirty lines rather than a package: Python's own logging is what every library here
writes to already. Importing this module loads neither torch nor faiss.
"""

import json
import logging
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Literal

LogFormat = Literal["text", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)

_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """A record as one line of JSON: time, level, logger, message, request_id, and its extras."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, in ASCII, so that nothing in it can begin another one."""
        entry: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "request_id": request_id.get(),
            **{name: value for name, value in vars(record).items() if name not in _OWN},
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)


class _TextFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        """`LEVEL logger: message [request_id]`."""
        line = super().format(record)
        return line if (now := request_id.get()) is None else f"{line} [{now}]"


def configure_logging(*, log_format: LogFormat, level: LogLevel) -> None:
    """Send every log of this process to stderr, in one form."""
    handler = logging.StreamHandler(sys.stderr)
    text = _TextFormatter("%(levelname)s %(name)s: %(message)s")
    handler.setFormatter(JsonFormatter() if log_format == "json" else text)
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for chatty in ("uvicorn", "urllib3", "httpcore2", "asyncio"):  # theirs only when it matters
        logging.getLogger(chatty).setLevel(logging.WARNING)
