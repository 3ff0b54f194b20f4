"""The ledgers of the tests of the ledger."""

import importlib.util
from pathlib import Path

_PATH = Path(__file__).resolve().parents[1] / "ledger" / "conftest.py"
_SPEC = importlib.util.spec_from_file_location("ledger_fixtures", _PATH)
assert _SPEC is not None
assert _SPEC.loader is not None
_fixtures = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_fixtures)
url = _fixtures.url
ledger = _fixtures.ledger
entry = _fixtures.entry
owners = _fixtures.owners
totals = _fixtures.totals
