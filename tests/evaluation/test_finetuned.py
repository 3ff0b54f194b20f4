"""Fine-tuned by configuration: the same code at a size of seconds, against a plain loop."""

import json

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from cli.main import app
from evaluation.finetuned import FinetunedTask, FinetuneSettings, read_blocks
from influence.errors import CorpusError

SIZE = {"block": 8, "batch": 2, "epochs": 2, "learning_rate": 0.01, "subsets": 4, "repeats": 2}
WORDS = ["king", "queen", "river", "mountain", "city", "ship", "gold", "silver", "bread", "wine"]


def _lines(count: int, seed: int) -> str:
    draw = np.random.default_rng(seed)
    return "".join(f"{' '.join(draw.choice(WORDS, size=12))}\n\n" for _ in range(count))


@pytest.fixture
def configuration(tmp_path, new_gpt2, tokenizer):
    """A tiny GPT-2 saved as transformers saves it, two texts, and the file that names them."""
    new_gpt2().save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    (tmp_path / "train.txt").write_text(_lines(9, seed=0))
    (tmp_path / "valid.txt").write_text(_lines(4, seed=1))
    names = {"model": str(tmp_path / "model"), "train": "train.txt", "queries": "valid.txt"}
    path = tmp_path / "configuration.json"
    path.write_text(json.dumps({**names, **SIZE}))
    return path


@pytest.fixture
def task(configuration, new_gpt2, tokenizer, as_loaded, tmp_path):
    settings = FinetuneSettings.read(configuration)
    return FinetunedTask(settings, as_loaded(new_gpt2(), tokenizer), cache=tmp_path / "cache")


def test_blocks_are_the_text_cut_within_a_thousand_lines(tmp_path, tokenizer):
    path = tmp_path / "text.txt"
    path.write_text("king queen\n" * 1001)
    blocks = read_blocks(path, tokenizer, 6)
    ids = tokenizer("king queen\n")["input_ids"] * 1000
    assert [block.input_ids for block in blocks] == [
        ids[i : i + 6] for i in range(0, len(ids) - 5, 6)
    ]
    assert all(block.targets == [False] + [True] * 5 for block in blocks)
    path.write_text("king\n")
    with pytest.raises(CorpusError, match="makes no block of 6 tokens"):
        read_blocks(path, tokenizer, 6)


def test_an_output_is_that_of_a_plain_training_loop(task):
    subset = np.arange(len(task.blocks)) % 2 == 0
    (got,) = task.outputs(subset[None])
    measured = []
    for seed in range(SIZE["repeats"]):
        model = task.train(subset, seed).model  # seeds of the first subset
        for query in task.queries:
            ids = torch.tensor([query.input_ids])
            with torch.no_grad():
                logs = model(input_ids=ids).logits[0, :-1].log_softmax(1)
            measured.append(logs.gather(1, ids[0, 1:, None]).sum().item())
    expected = np.reshape(measured, (SIZE["repeats"], -1)).mean(axis=0)
    # A sum of seven float32 logarithms of single figures.
    np.testing.assert_allclose(got, expected, atol=1e-4)


def test_training_leaves_the_start_alone_learns_and_depends_on_the_order_of_its_seed(task):
    everything = np.ones(len(task.blocks), dtype=bool)
    before = task.start.weights_sha256
    one, again, other = (task.train(everything, seed) for seed in (0, 0, 1))
    assert one.weights_sha256 == again.weights_sha256 != other.weights_sha256
    assert task.train(everything, 0).weights_sha256 != before
    ids = torch.tensor([block.input_ids for block in task.blocks])
    with torch.no_grad():
        losses = [
            float(loaded.model(input_ids=ids, labels=ids).loss) for loaded in (task.start, one)
        ]
    assert losses[1] < losses[0]


def test_the_command_compares_methods_and_does_not_train_twice(
    configuration, tmp_path, monkeypatch
):
    places = ["--out", str(tmp_path / "out"), "--cache", str(tmp_path / "cache"), "--device", "cpu"]
    asked = ["evaluate", "finetuned", str(configuration), *places]
    first = CliRunner().invoke(app, asked)
    assert first.exit_code == 0, first.exception
    assert "4 subsets of 0.5 of the blocks, 2 models retrained on each" in first.stdout
    assert "| Whence: rank 64, D 4,096, joint |" in first.stdout
    kept = sorted(path.name for path in (tmp_path / "cache").iterdir())
    assert len(kept) == SIZE["subsets"] * SIZE["repeats"]
    written = json.loads((tmp_path / "out" / "methods-finetuned.json").read_text())
    assert {row["method"] for row in written["rows"]} >= {"random", "token overlap (BM25)"}
    trained = []
    train = FinetunedTask.train
    monkeypatch.setattr(FinetunedTask, "train", lambda *args: trained.append(args) or train(*args))
    assert CliRunner().invoke(app, asked).exit_code == 0
    assert len(trained) == 1  # on everything


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"epoch": 3}, {"fraction": 1}])
def test_a_configuration_that_cannot_be_meant_is_refused(configuration, wrong):
    content = json.loads(configuration.read_text()) | wrong
    configuration.write_text(json.dumps(content))
    with pytest.raises(CorpusError, match="is no configuration of a fine-tune"):
        FinetuneSettings.read(configuration)
