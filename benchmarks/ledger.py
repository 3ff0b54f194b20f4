"""A ledger of many entries on SQLite: how fast it grows, how long a statement of it takes.

    python -m benchmarks.ledger [--entries 1000000 --owners 20 --batch 500 --folder FOLDER]

The append rate is that of `service.ledger.ledger.Ledger.append`, hashing included, by default in
the batches that the recorder makes; the statement is one of `whence payout` over all of them.
"""

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

from service.ledger.chain import Pending, canonical, pack_totals
from service.ledger.ledger import Ledger
from service.ledger.record import owners_digest, owners_entry
from service.ledger.recorder import BATCH_ENTRIES
from service.ledger.verify import verify_ledger
from service.valuation.statement import Terms, make_statement, to_json

START_US = 1_790_812_800_000_000  # 2026-10-01
MONTH_US = 31 * 86_400 * 10**6


def fill(ledger: Ledger, entries: int, owners: int, batch: int) -> None:
    names = ["", *(f"owner-{i:05d}" for i in range(owners - 1))]
    body = {"index": "bench", "version": "000001-000000000000", "model": "none", "names": names}
    named = owners_entry(body, time_us=START_US)
    ledger.append([named])
    draw = np.random.default_rng(0)
    means = draw.normal(size=owners)
    for start in range(0, entries, batch):
        count = min(batch, entries - start)
        totals = draw.normal(means, 3, size=(count, owners)).astype(np.float32)
        salts = draw.bytes(16 * count)
        ledger.append(
            [
                entry(start + i, entries, totals[i], salts[16 * i : 16 * i + 16], named)
                for i in range(count)
            ]
        )


def entry(number: int, of: int, totals: np.ndarray, salt: bytes, owners: Pending) -> Pending:
    body = {
        "request_id": f"{number:032x}",
        "caller": f"key-{number % 7}",
        "query": f"{number:064x}",
        "tokens": 20,
        "stands_out": True,
        "usage": 20.0,
        "policy": "all",
        "probability": 1.0,
        "passages": [[f"document-{number % 1000}#0", 1.5]],
    }
    return Pending(
        "attribution",
        f"request:{number:032x}",
        START_US + number * MONTH_US // of,
        canonical(body),
        weight=20.0,
        owners=owners_digest(owners),
        totals=pack_totals(totals),
        salt=salt,
    )


def peak_gb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def run(folder: Path, entries: int, owners: int, batch: int) -> None:
    path = folder / "ledger.db"
    ledger = Ledger(str(path), create=True)
    begun, cpu = time.perf_counter(), time.process_time()
    fill(ledger, entries, owners, batch)
    took, cpu = time.perf_counter() - begun, time.process_time() - cpu
    size = sum(file.stat().st_size for file in folder.iterdir())
    print(
        f"append      {entries / took:10,.0f} entries/s ({entries / cpu:,.0f} for each second of "
        f"CPU), {size / 2**30:.2f} GiB",
        flush=True,
    )
    begun, cpu = time.perf_counter(), time.process_time()
    statement = make_statement(ledger, "2026-10", Terms(10**7, "positive-share"))
    print(
        f"statement   {time.perf_counter() - begun:10.1f} s ({time.process_time() - cpu:.1f} s of "
        f"CPU) of {owners} owners, {len(to_json(statement)):,} bytes; peak {peak_gb():.2f} GiB",
        flush=True,
    )
    begun, cpu = time.perf_counter(), time.process_time()
    verify_ledger(ledger)
    took, cpu = time.perf_counter() - begun, time.process_time() - cpu
    print(f"verify      {entries / took:10,.0f} entries/s ({entries / cpu:,.0f} by CPU)")
    ledger.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--owners", type=int, default=20)
    parser.add_argument("--batch", type=int, default=BATCH_ENTRIES, help="of one transaction")
    parser.add_argument("--folder", type=Path, help="where; a temporary one by default")
    chosen = parser.parse_args()
    if chosen.folder is not None:
        run(chosen.folder, chosen.entries, chosen.owners, chosen.batch)
        return
    with tempfile.TemporaryDirectory() as folder:
        run(Path(folder), chosen.entries, chosen.owners, chosen.batch)


if __name__ == "__main__":
    main()
