"""Ledgers of random attributions; SQLite, and PostgreSQL where a server is named."""

import json
import os
import random
import uuid

import pytest

from service.ledger.chain import Pending
from service.ledger.ledger import Ledger
from service.ledger.record import attribution_entry, owners_entry
from service.schemas import AttributeRequest, AttributeResult

POSTGRES = os.environ.get("TEST_POSTGRES_URL")  # WHENCE_TEST_POSTGRES_URL, renamed (tests.conftest)
START_US = 1_790_812_800_000_000  # 2026-10-01


def make_request(text: str = "the pet is a heron") -> AttributeRequest:
    return AttributeRequest(prompt="which animal?", response=text)


def make_result(request_id: str, totals: dict[str | None, float]) -> AttributeResult:
    """An answer with these totals; what a ledger does not look at is left at its simplest."""
    positive = sum(max(t, 0) for t in totals.values()) or 1.0
    return AttributeResult.model_validate(
        {
            "request_id": request_id,
            "model": "tiny",
            "index": {"id": "library", "version": "000001-0f3a9c5d7e21", "exact": True},
            "query": {
                "tokens": 5,
                "loss_nats": 3.0,
                "measurement": "loss",
                "value": 3.0,
                "stands_out": True,
                "message": None,
            },
            "proponents": [],
            "opponents": [],
            "owners": [
                {"owner": owner, "influence": total, "share": max(total, 0) / positive}
                for owner, total in sorted(totals.items(), key=lambda item: -item[1])
            ],
            "timings_ms": {"queue": 0, "gradient": 0, "search": 0, "fetch": 0},
            "cached": False,
        }
    )


def make_owners(names: tuple[str, ...] = ("", "Anna", "Bruno", "Chloe"), **counts) -> Pending:
    body = {
        "index": "library",
        "version": "000001-0f3a9c5d7e21",
        "model": "tiny",
        "names": list(names),
        **counts,
    }
    return owners_entry(body, time_us=START_US)


def make_entry(
    request_id: str,
    totals: dict[str | None, float],
    *,
    owners: Pending | None = None,
    text: str = "the pet is a heron",
    time_us: int = START_US,
    usage: float = 1.0,
    caller: str | None = None,
    keep_text: bool = True,
) -> Pending:
    owners = owners or make_owners()
    names = json.loads(owners.body)["names"]
    return attribution_entry(
        make_request(text),
        make_result(request_id, totals),
        owners,
        {name: i for i, name in enumerate(names)},
        caller=caller,
        usage=usage,
        probability=1.0,
        policy="all",
        keep_text=keep_text,
        salt=random.Random(f"{request_id}{text}{time_us}").randbytes(16),
        time_us=time_us,
    )


def random_totals(draw: random.Random) -> dict[str | None, float]:
    return {name: draw.gauss(0.5, 1) for name in (None, "Anna", "Bruno", "Chloe")}


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def url(request, tmp_path):
    """Where a ledger of this test may be."""
    if request.param == "sqlite":
        yield str(tmp_path / "ledger.db")
        return
    if not POSTGRES:
        pytest.skip("WHENCE_TEST_POSTGRES_URL names no server")
    import psycopg

    name = f"whence_{uuid.uuid4().hex}"
    with psycopg.connect(POSTGRES, autocommit=True) as server:
        server.execute(f"CREATE DATABASE {name}")
        yield f"{POSTGRES.rsplit('/', 1)[0]}/{name}"
        server.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def ledger(url):
    ledger = Ledger(url, create=True)
    yield ledger
    ledger.close()


@pytest.fixture
def filled(ledger):
    """A ledger of 20 attributions."""
    draw = random.Random(0)
    ledger.append([make_owners()])
    ledger.append([make_entry(f"r{i}", random_totals(draw), text=f"t{i}") for i in range(20)])
    return ledger


@pytest.fixture(scope="session")
def entry():
    """`make_entry`."""
    return make_entry


@pytest.fixture(scope="session")
def owners():
    """`make_owners`."""
    return make_owners


@pytest.fixture(scope="session")
def totals():
    """`random_totals`."""
    return random_totals
