"""Small corpora, written as people write them."""

import gzip
import json
from pathlib import Path

import pytest
import torch

from indexer.training_record import parse_record, write_record


@pytest.fixture
def write_jsonl(tmp_path):
    """Write records, one JSON object a line, under a name of the temporary folder."""

    def write(records, name="corpus.jsonl") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = "".join(json.dumps(record) + "\n" for record in records).encode()
        if name.endswith(".gz"):
            path.write_bytes(gzip.compress(lines))
        elif name.endswith(".zst"):
            import pyarrow as pa

            with pa.output_stream(path, compression="zstd") as stream:
                stream.write(lines)
        else:
            path.write_bytes(lines)
        return path

    return write


@pytest.fixture
def train(tmp_path, new_llama, tokenizer):
    """Train a tiny Llama on records, step by step, and leave checkpoints with their record."""

    def run(records, *, name="checkpoints", every=2, rate=0.05, batch=3, **recorded) -> Path:
        directory = tmp_path / name
        directory.mkdir()
        model = new_llama(num_hidden_layers=1)
        optimizer = torch.optim.SGD(model.parameters(), lr=rate)
        checkpoints, order = [], []
        batches = [records[start : start + batch] for start in range(0, len(records), batch)]
        for step, chosen in enumerate(batches, start=1):
            texts = [tokenizer(record["text"])["input_ids"] for record in chosen]
            losses = [model(input_ids=(x := torch.tensor([t])), labels=x).loss for t in texts]
            (sum(losses) / len(losses)).backward()
            optimizer.step()
            optimizer.zero_grad()
            order.append({"steps": [step, step], "documents": [r["id"] for r in chosen]})
            if step % every == 0 or step == len(batches):
                folder = directory / f"checkpoint-{step}"
                model.save_pretrained(folder)
                tokenizer.save_pretrained(folder)
                checkpoints.append({"step": step, "folder": folder.name})
        (directory / "data_order.jsonl").write_text("".join(f"{json.dumps(o)}\n" for o in order))
        values = {
            "batch_size": batch,
            "averaged": "example",
            "schedule": [[1, rate]],
            "checkpoints": checkpoints,
            "data_order": True,
        }
        write_record(directory, parse_record({**values, **recorded}, "the test's record"))
        return directory

    return run
