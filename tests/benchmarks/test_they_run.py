"""Benchmarks that need neither a download nor minutes run at a toy size and print their table."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("module", "options", "rows"),
    [
        (
            "benchmarks.search",
            ["--rows", "400", "--dims", "64", "--rounds", "2", "--threads", "1"],
            ["float32", "float16", "sq8", "rabitq, 400 again"],
        ),
        (
            "benchmarks.training",
            ["--layers", "1", "--width", "64", "--vocabulary", "64", "--repeats", "1"],
            ["plain", "logged at rank 64"],
        ),
        *(
            pytest.param(
                "benchmarks.serving",
                ["--records=40", "--hidden=16", "--requests=24", "--overload-s=1", *split],
                ["one by one", "in batches", "from the cache", "memory flat"],
                marks=pytest.mark.slow,  # five servers, each of which loads torch
            )
            for split in ([], ["--split"])
        ),
        ("benchmarks.refusals", ["--requests", "20"], ["ms of CPU a refusal"]),
        ("benchmarks.ledger", ["--entries", "200", "--owners", "3"], ["append"]),
        ("benchmarks.duplicates", ["--documents", "200"], ["copies found"]),
    ],
)
def test_a_benchmark_prints_its_table(module, options, rows):
    done = subprocess.run(
        [sys.executable, "-m", module, *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    assert all(row in done.stdout for row in rows), done.stdout
