"""The tiny index of the service's tests and a ledger of real answers from it, over some days."""

import os

import pytest

from service.dashboard.sources import Filters, Sources
from service.ledger.ledger import Ledger
from service.ledger.record import attribution_entry, owners_of
from service.schemas import AttributeRequest

DAY_US = 86_400_000_000
START_US = 1_790_812_800_000_000  # 2026-10-01
ANSWERS = ["the king of gold", "a river to the north", "bread and wine", "the ship was silver"]


@pytest.fixture(scope="session")
def recorded(engine, tmp_path_factory):
    """The ledger, and for each of its answers the result."""
    ledger = Ledger(str(tmp_path_factory.mktemp("ledger") / "l.db"), create=True)
    results = []
    for number in range(12):
        text = f"{ANSWERS[number % len(ANSWERS)]} {number}"
        request = AttributeRequest(prompt="who?", response=text, top_k=6)
        result = engine.attribute(request, request_id=f"r{number}")
        owners, names = owners_of(result, time_us=START_US)
        entry = attribution_entry(
            request,
            result,
            owners,
            names,
            caller="a",
            usage=1.0 + number / 7,
            probability=1.0,
            policy="all",
            keep_text=False,
            salt=os.urandom(16),
            time_us=START_US + number * DAY_US // 2,
        )
        ledger.append([owners, entry])
        results.append((1.0 + number / 7, result))
    yield ledger, results
    ledger.close()


@pytest.fixture
def sources(engine, recorded):
    """Sources over both, with filters."""
    return lambda **filters: Sources(engine.reader, recorded[0], filters=Filters(**filters))
