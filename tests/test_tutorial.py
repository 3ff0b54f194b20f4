"""The tutorial from corpus to payout, at a small size."""

import csv
import io
import runpy
from pathlib import Path

from influence.store import IndexReader

SCRIPT = Path(__file__).resolve().parents[1] / "docs" / "tutorial" / "corpus_to_payout.py"


def test_the_tutorial_ends_with_the_whole_pool_paid(tmp_path, capsys):
    main = runpy.run_path(str(SCRIPT))["main"]
    size = ["--documents", "24", "--steps", "20", "--questions", "3"]
    lines = list(csv.DictReader(io.StringIO(main(["--folder", str(tmp_path), *size]))))
    earned = sum(round(100 * float(line["earned"])) for line in lines)
    assert earned == 100_000
    quality = IndexReader.open(tmp_path / "index").manifest.quality
    assert {entry.measure for entry in quality} >= {"own_recall@1", "own_mrr"}
    assert "4. " in capsys.readouterr().out
