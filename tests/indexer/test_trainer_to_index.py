"""A run of transformers.Trainer becomes an index of SOURCE that answers questions."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import Trainer, TrainingArguments, default_data_collator
from typer.testing import CliRunner

from cli.main import app
from indexer.logger import Logger
from indexer.trainer_callback import LoggerCallback
from indexer.training_record import second_moments_of
from influence.store import IndexReader
from service.engine import Engine
from service.schemas import AttributeRequest

KINDS = ["king", "queen", "river", "mountain", "city", "ship", "gold", "silver"]
WORDS = [*KINDS, "bread", "wine", "north", "south", "east", "west"]


def test_a_trainers_run_becomes_an_index_that_is_served(
    new_llama, tokenizer, write_jsonl, tmp_path
):
    """Trainer with the callback, `whence index` along its checkpoints, an answer explained."""
    generator = np.random.default_rng(3)
    texts = [" ".join(generator.choice(WORDS, size=5 + n % 3)) for n in range(12)]
    records = [{"id": str(n), "text": text} for n, text in enumerate(texts)]
    model, output = new_llama(num_hidden_layers=1), tmp_path / "run"
    data = []
    for number, record in enumerate(records):
        ids = tokenizer(record["text"], padding="max_length", max_length=24)["input_ids"]
        real = len(tokenizer(record["text"])["input_ids"])
        labels = [token if at < real else -100 for at, token in enumerate(ids)]
        data.append({"input_ids": ids, "labels": labels, "document_id": number})
    arguments = TrainingArguments(
        output_dir=str(output),
        per_device_train_batch_size=3,
        num_train_epochs=1,
        learning_rate=1e-3,
        logging_steps=1,
        save_steps=2,
        remove_unused_columns=False,
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
    )
    Trainer(
        model,
        arguments,
        train_dataset=data,
        processing_class=tokenizer,
        data_collator=default_data_collator,
        callbacks=[LoggerCallback(Logger(model, tmp_path / "log", rank=4))],
    ).train()
    written = [second_moments_of(output / f"checkpoint-{step}") for step in (2, 4)]
    while_training = [load_file(path) for path in written]
    for path in written:
        path.unlink()  # as of a Trainer without the callback
    recorded = CliRunner().invoke(app, ["record", str(output)])
    assert recorded.exit_code == 0, recorded.output
    for path, moments in zip(written, while_training, strict=True):
        converted = load_file(path)
        assert converted.keys() == moments.keys()
        assert all(torch.equal(converted[name], moments[name]) for name in moments)
    corpus, index = str(write_jsonl(records)), tmp_path / "index"
    said = CliRunner().invoke(
        app,
        [
            *("index", corpus, "--method", "source", "--checkpoints", str(output)),
            *("--segments", "2", "--out", str(index), "--rank", "8", "--max-length", "32"),
            *("--device", "cpu", "--dtype", "float32"),
        ],
    )
    assert said.exit_code == 0, said.output
    shown = CliRunner().invoke(app, ["info", str(index)]).output
    assert "source, along 4 steps" in shown
    assert shown.count("\nsegment ") == 2
    assert IndexReader.open(index).manifest.settings.labels == "sampled"
    engine = Engine.load(index, output / "checkpoint-4", device="cpu")
    assert engine.info().index.method == "source"
    request = AttributeRequest(prompt="king of", response=" gold", top_k=12, explain=True)
    answer = engine.attribute(request, request_id="test")
    engine.close()
    hits = [*answer.proponents, *answer.opponents]
    assert hits
    for hit in hits:
        assert hit.tokens == ()
        of_response = sum(part.influence for part in hit.explanation.response)
        of_response += hit.explanation.response_elsewhere
        scale = 1e-3 * max(abs(h.influence) for h in hits)  # fp16 of the stored vector
        assert of_response == pytest.approx(hit.influence, rel=2e-3, abs=scale)
        assert hit.explanation.tokens_elsewhere == pytest.approx(of_response, rel=1e-5)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--method", "source"], "takes --checkpoints and --segments"),
        (["--method", "source", "--checkpoints", ".", "--segments", "0"], "segments"),
        (["--method", "source", "--checkpoints", ".", "--segments", "few"], "segments"),
        (
            [*("--method", "source", "--checkpoints", ".", "--segments", "2"), "--damping", "1"],
            "no --damping",
        ),
        (["--model", "m", "--segments", "2"], "of --method source"),
        ([], "give --model"),
    ],
)
def test_options_that_do_not_go_together_are_a_usage_error(options, said):
    done = CliRunner().invoke(app, ["index", "corpus.jsonl", "--out", "index", *options])
    assert done.exit_code == 2
    assert said in " ".join(done.output.replace("│", " ").split())
