import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from demo.finetune import SUMMARY, finetune, plan_batches
from demo.settings import FinetuneSettings, index_settings
from indexer.progress import Silence
from influence.layers import select_layers
from influence.model import load_model

SETTINGS = FinetuneSettings(
    blocks=2, epochs=30, learning_rate=1e-2, batch_tokens=256, max_length=128
)


def run(chat_model, corpus, out, settings=SETTINGS):
    return finetune(chat_model, corpus, out, settings, device="cpu", reporter=Silence())


@pytest.fixture
def tuned(chat_model, corpus, tmp_path):
    return run(chat_model, corpus, tmp_path / "out")


def test_the_records_are_learnt(tuned):
    losses = json.loads((tuned / SUMMARY).read_text())["loss_nats"]
    assert len(losses) == SETTINGS.epochs
    assert losses[-1] < 0.5 * losses[0]


def test_what_is_trained_is_what_is_indexed_and_nothing_else_moves(chat_model, tuned):
    before, after = (load_file(folder / "model.safetensors") for folder in (chat_model, tuned))
    patterns = index_settings(chat_model, SETTINGS).layers
    model = load_model(chat_model, device="cpu").model
    indexed = {f"{layer.name}.weight" for layer in select_layers(model, patterns)}
    moved = {
        name for name in before if not torch.equal(before[name].to(torch.float16), after[name])
    }
    assert before.keys() == after.keys()
    assert moved == indexed


def test_the_same_inputs_are_trained_on_once_and_give_the_same_weights(
    chat_model, corpus, tmp_path, tuned
):
    weights = tuned / "model.safetensors"
    written = weights.stat().st_mtime_ns
    assert run(chat_model, corpus, tmp_path / "out") == tuned
    assert weights.stat().st_mtime_ns == written
    again = run(chat_model, corpus, tmp_path / "elsewhere")
    assert (again / "model.safetensors").read_bytes() == weights.read_bytes()


def test_other_inputs_are_another_model(chat_model, corpus, tmp_path, tuned):
    shorter = replace(SETTINGS, epochs=1)
    assert run(chat_model, corpus, tmp_path / "out", shorter) != tuned
    corpus.write_text("".join(corpus.read_text().splitlines(keepends=True)[:4]))
    assert run(chat_model, corpus, tmp_path / "out", shorter).name != tuned.name


def test_the_new_model_loads_as_half_precision_with_its_tokenizer(chat_model, tuned):
    config = json.loads((tuned / "config.json").read_text())
    assert config["dtype"] == "float16"
    old, new = (load_model(folder, device="cpu") for folder in (chat_model, tuned))
    assert new.tokenizer_sha256 == old.tokenizer_sha256
    assert new.weights_sha256 != old.weights_sha256


def test_every_epoch_has_every_passage_once_within_the_budget():
    lengths = [5 + 7 * n % 90 for n in range(150)]
    settings = FinetuneSettings(epochs=3, batch_tokens=200)
    plan = plan_batches(lengths, settings)
    for epoch in plan:
        assert sorted(i for group in epoch for i in group) == list(range(150))
        assert all(len(group) * max(lengths[i] for i in group) <= 200 for group in epoch)
    assert plan == plan_batches(lengths, settings)
    assert plan[0] != plan[1]
