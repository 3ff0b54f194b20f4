"""A clock that is set does no harm: what waits, limits or expires goes by one that cannot be."""

import ast
import asyncio
import time
from pathlib import Path

import pytest

from influence.errors import DeadlineExceeded, RateLimited
from service.rates import OwnRates

ROOT = Path(__file__).resolve().parents[1]

# Everything that asks what time it is, and why it may: moments that are written down for people or
# other programs, and the expiry of keys, which is a date.
ASKS_THE_TIME = {
    "api/routes/feedback.py": "when feedback was given",
    "api/tracing.py": "traces have the time of day",
    "service/additions.py": "additions are carried out in the order in which they came",
    "service/audit.py": "when an administrator did something",
    "service/logs.py": "when a line was logged",
    "service/chat/local.py": "when an answer was written, as the OpenAI API tells",
    "service/dashboard/answers.py": "when an answer was given, for people",
    "service/dashboard/sources.py": "the day of an answer, for people",
    "service/exchanges.py": "replicas share what was asked, and no other clock",
    "service/keys.py": "a key expires on a date",
    "service/rates.py": "the day that a request is counted for",
    "service/ledger/recorded.py": "when an answer was given",
    "service/ledger/retention.py": "when texts were erased",
    "service/ledger/spool.py": "names of files, which sort by it; the lock decides, not the name",
    "service/valuation/aliases.py": "when an alias was given",
}
WALL_CLOCKS = {"time", "time_ns", "now", "utcnow", "today", "fromtimestamp"}


def asks_the_time(path: Path) -> bool:
    """Calls `time.time()`, `datetime.now()` …, or imports one of them to do so."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            of = node.func.value
            name = of.id if isinstance(of, ast.Name) else getattr(of, "attr", "")
            if name in ("time", "datetime", "date") and node.func.attr in WALL_CLOCKS:
                return True
        if isinstance(node, ast.ImportFrom) and node.module == "time":
            return any(alias.name in WALL_CLOCKS for alias in node.names)
    return False


def test_only_what_is_written_down_has_the_time_of_day():
    found = {
        str(path.relative_to(ROOT))
        for package in ("service", "api", "whence_client")
        for path in (ROOT / package).rglob("*.py")
        if asks_the_time(path)
    }
    assert found == set(ASKS_THE_TIME)


@pytest.mark.parametrize("jump_s", [86_400, -86_400])
def test_a_clock_that_jumps_by_a_day_moves_no_deadline_and_no_rate(monkeypatch, jump_s):
    from api.patience import while_awaited

    class Waiting:
        async def receive(self):
            await asyncio.sleep(60)

    async def scenario():
        rates = OwnRates()
        for _ in range(3):
            await rates.admit("key", 3)
        real = time.time()
        working = asyncio.create_task(asyncio.sleep(0.2, result="done"))
        awaited = asyncio.create_task(while_awaited(Waiting(), working, timeout_s=30))
        late = asyncio.create_task(while_awaited(Waiting(), asyncio.sleep(30), timeout_s=0.3))
        await asyncio.sleep(0)
        monkeypatch.setattr(time, "time", lambda: real + jump_s)
        assert await awaited == "done"  # a jump forwards gives nobody up
        with pytest.raises(DeadlineExceeded):  # one backwards keeps nobody waiting
            await asyncio.wait_for(late, 20)
        with pytest.raises(RateLimited) as refused:
            await rates.admit("key", 3)
        assert 1 <= refused.value.retry_after_s <= 60

    asyncio.run(scenario())
