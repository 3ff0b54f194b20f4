"""A tiny random model and an index of three dozen documents, made by the project's own indexer."""

import json
import random
from pathlib import Path
from typing import NamedTuple

import pytest

from indexer.build import build_index
from indexer.progress import Silence
from influence.manifest import IndexSettings
from influence.model import load_model
from service.engine import Engine

WORDS = [
    *("the", "a", "of", "and", "to", "in", "is", "was", "king", "queen", "river", "mountain"),
    *("city", "ship", "gold", "silver", "bread", "wine", "north", "south", "east", "west"),
]
OWNERS = ("Anna", "Bruno", "Chloe", None)


class Tiny(NamedTuple):
    """Folders of a model and of its index, and the records that were indexed."""

    model_dir: Path
    index_dir: Path
    records: list[dict]

    def engine(self, **settings) -> Engine:
        return Engine.load(self.index_dir, self.model_dir, device="cpu", **settings)


def make_records(count: int) -> list[dict]:
    choose = random.Random(0)
    records = []
    for number in range(count):
        owner = OWNERS[number % len(OWNERS)]
        record = {
            "id": f"shelf/{number}",
            "prompt": " ".join(choose.choices(WORDS, k=6)) + "?",
            "response": " ".join(choose.choices(WORDS, k=25)) + ".",
            "title": f"Volume {number}",
            "source": "upper" if number < count // 2 else "lower",
            "licence": "public domain",
            "url": f"https://example.org/{number}",
            "metadata": {"number": number},
        }
        records.append(record | ({} if owner is None else {"owner": owner}))
    # One long text, so that a document has several passages.
    records.append({"id": "long text", "text": " ".join(choose.choices(WORDS, k=300))})
    return records


@pytest.fixture(scope="session")
def save_tiny_model(new_llama, new_tokenizer):
    """Write a random Llama and its tokenizer to a folder."""

    def save(folder: Path, *, seed: int = 0, chat: bool = False) -> Path:
        new_llama(seed=seed).save_pretrained(folder)
        new_tokenizer(chat=chat).save_pretrained(folder)
        return folder

    return save


@pytest.fixture(scope="session")
def tiny(tmp_path_factory, save_tiny_model) -> Tiny:
    folder = tmp_path_factory.mktemp("tiny")
    model_dir = save_tiny_model(folder / "model")
    records = make_records(36)
    corpus = folder / "corpus.jsonl"
    corpus.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    settings = IndexSettings(
        rank=8, dims=256, max_length=96, fit_passages=16, batch_tokens=512, shard_passages=16
    )
    loaded = load_model(model_dir, device="cpu")
    build_index(str(corpus), loaded, folder / "library", settings, reporter=Silence())
    return Tiny(model_dir, folder / "library", records)


@pytest.fixture(scope="session")
def engine(tiny):
    engine = tiny.engine()
    yield engine
    engine.close()
