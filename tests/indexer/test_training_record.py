"""Records of trainings: what a Trainer leaves, plain YAML, and everything that can be wrong."""

import json

import pytest
import torch
from typer.testing import CliRunner

from cli.main import app
from indexer.record_import import record_of_trainer, record_of_yaml
from indexer.training_record import (
    SeenDocuments,
    data_order,
    parse_record,
    read_record,
    write_record,
)
from influence.errors import InvalidInput

SOUND = {
    "optimizer": {"name": "sgd", "momentum": 0.9},
    "batch_size": 4,
    "schedule": [[1, 0.1], [20, 0.0]],
    "checkpoints": [{"step": 10, "folder": "a"}, {"step": 20, "folder": "b"}],
}


@pytest.fixture
def folder(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").touch()
    return tmp_path


def test_learning_rates_are_summed_over_the_steps():
    record = parse_record(SOUND, "it")
    rates = [0.1 * (20 - step) / 19 for step in range(1, 21)]
    assert record.learning_rates(1, 20) == pytest.approx(sum(rates))
    assert record.learning_rates(6, 9) == pytest.approx(sum(rates[5:9]))


def test_a_record_comes_back_as_it_was_written(folder):
    record = parse_record(SOUND, "it")
    write_record(folder, record)
    assert read_record(folder) == record


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"checkpoints": SOUND["checkpoints"][::-1]}, "from step 20 to step 10"),
        ({"schedule": [[1, 0.1], [15, 0.0]]}, "steps 1 to 15, and the last checkpoint of step 20"),
        ({"schedule": [[5, 0.1], [20, 0.0]]}, "begins at step 0 or 1"),
        ({"schedule": [[9, 0.1], [3, 0.1]]}, "steps must rise"),
        ({"schedule": [[1, 0.0], [20, 0.0]]}, "nothing was learnt"),
        ({"schedule": [[1, float("nan")], [20, 0.0]]}, "schedule"),
        ({"schedule": [[1, -0.1], [20, 0.0]]}, "schedule"),
        ({"schedule": []}, "schedule"),
        ({"checkpoints": []}, "checkpoints"),
        ({"checkpoints": [{"step": 0, "folder": "a"}]}, "before any training"),
        ({"stages": [{"name": "one", "last_step": 15}]}, "ends at step 15"),
        ({"batch_size": 0}, "batch_size"),
        ({"optimizer": {"name": "lion"}}, "optimizer.name"),
        ({"optimizer": {"name": "sgd", "momentum": 1.0}}, "momentum"),
        ({"optimizer": {"name": "sgd", "preconditioned": True}}, "second moments"),
        ({"learning_rate": 0.1}, "learning_rate"),
    ],
)
def test_a_record_that_contradicts_itself_is_refused(change, said):
    with pytest.raises(InvalidInput, match=said):
        parse_record({**SOUND, **change}, "it")


def test_a_missing_checkpoint_is_named(folder):
    write_record(folder, parse_record(SOUND, "it"))
    (folder / "a" / "model.safetensors").unlink()
    with pytest.raises(InvalidInput, match="step 10 has no weights"):
        read_record(folder)


def test_missing_second_moments_are_named(folder):
    values = {**SOUND, "optimizer": {"name": "adamw", "preconditioned": True}}
    write_record(folder, parse_record(values, "it"))
    with pytest.raises(InvalidInput, match="step 10 has no second moments"):
        read_record(folder)


def test_no_record_and_a_broken_one_say_what_to_do(folder):
    with pytest.raises(InvalidInput, match="whence record"):
        read_record(folder)
    (folder / "training.json").write_text("{")
    with pytest.raises(InvalidInput, match="cannot be read"):
        read_record(folder)


def _order(folder, *lines):
    (folder / "data_order.jsonl").write_text("".join(f"{line}\n" for line in lines))
    return list(data_order(folder, parse_record(SOUND, "it")))


def test_the_data_order_is_read_line_by_line(folder):
    assert _order(folder, '{"steps": [1, 10], "documents": ["x", "y"]}') == [
        SeenDocuments(1, 10, ("x", "y"))
    ]


@pytest.mark.parametrize(
    "line",
    [
        "{",
        '{"steps": [1], "documents": ["x"]}',
        '{"documents": ["x"]}',
        '{"steps": [1, 21], "documents": ["x"]}',
        '{"steps": [5, 4], "documents": ["x"]}',
        '{"steps": [0, 4], "documents": ["x"]}',
        '{"steps": [1, 2], "documents": []}',
    ],
)
def test_a_line_of_the_data_order_that_makes_no_sense_is_named(folder, line):
    with pytest.raises(InvalidInput, match="line 1"):
        _order(folder, line)


def _trainer_folder(tmp_path, rates):
    for step in (10, 20):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        (folder / "model.safetensors").touch()
        history = [{"step": s, "learning_rate": r, "loss": 1.0} for s, r in rates if s <= step]
        state = {"global_step": step, "train_batch_size": 8, "log_history": history}
        (folder / "trainer_state.json").write_text(json.dumps(state))


def test_a_trainers_folder_says_how_training_went(tmp_path):
    _trainer_folder(tmp_path, [(5, 1e-3), (10, 8e-4), (15, 6e-4), (20, 4e-4)])
    record = record_of_trainer(tmp_path)
    assert [c.step for c in record.checkpoints] == [10, 20]
    assert record.batch_size == 8
    assert record.optimizer.name == "adamw"
    assert record.learning_rate(1) == 1e-3
    assert record.learning_rate(12) == pytest.approx(7.2e-4)


def test_a_trainers_folder_without_learning_rates_says_what_to_set(tmp_path):
    _trainer_folder(tmp_path, [])
    with pytest.raises(InvalidInput, match="logging_steps"):
        record_of_trainer(tmp_path)


def test_a_folder_of_two_trainings_is_refused(tmp_path):
    _trainer_folder(tmp_path, [(5, 1e-3)])
    state = {"log_history": [{"step": 99, "learning_rate": 1e-3}]}
    (tmp_path / "checkpoint-20" / "trainer_state.json").write_text(json.dumps(state))
    with pytest.raises(InvalidInput, match="two trainings"):
        record_of_trainer(tmp_path)


@pytest.mark.parametrize("state", [None, "no json"])
def test_a_folder_that_no_trainer_wrote_is_refused(tmp_path, state):
    if state is not None:
        _trainer_folder(tmp_path, [(5, 1e-3)])
        (tmp_path / "checkpoint-20" / "trainer_state.json").write_text(state)
    with pytest.raises(InvalidInput, match="--yaml"):
        record_of_trainer(tmp_path)


YAML = """
optimizer: {name: adamw, weight_decay: 0.1}
batch_size: 4
schedule: {kind: cosine, peak: 0.001, warmup_steps: 5}
checkpoints:
  - {step: 10, folder: a}
  - {step: 20, folder: b}
stages:
  - {name: pre-training, last_step: 10}
  - {name: fine-tuning, last_step: 20}
"""


def test_yaml_is_recorded_by_the_command(folder):
    (folder / "how.yaml").write_text(YAML)
    done = CliRunner().invoke(app, ["record", str(folder), "--yaml", str(folder / "how.yaml")])
    assert done.exit_code == 0, done.output
    record = read_record(folder)
    assert record.learning_rate(1) == 0
    assert record.learning_rate(6) == 1e-3
    assert record.learning_rate(20) < record.learning_rate(10) < 1e-3
    assert [stage.name for stage in record.stages] == ["pre-training", "fine-tuning"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- a\n- b\n", "no mapping"),
        ("a: [", "cannot be read as YAML"),
        (YAML.replace("cosine", "square"), "not understood"),
        (YAML.replace("warmup_steps", "warmup"), "not understood"),
        (YAML.replace("folder: b", "folder: c"), "no weights"),
        (YAML.replace("batch_size: 4", ""), "batch_size"),
    ],
)
def test_yaml_that_is_wrong_is_refused_in_a_sentence(folder, text, said):
    (folder / "how.yaml").write_text(text)
    with pytest.raises(InvalidInput, match=said):
        record_of_yaml(folder, folder / "how.yaml")


def test_an_optimizer_state_of_another_model_is_refused(tmp_path, new_llama):
    _trainer_folder(tmp_path, [(5, 1e-3), (20, 1e-4)])
    model = new_llama(num_hidden_layers=1)
    for folder in tmp_path.glob("checkpoint-*"):
        model.config.save_pretrained(folder)
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.ones(3))], lr=1.0)
    optimizer.param_groups[0]["params"][0].grad = torch.ones(3)
    optimizer.step()
    torch.save(optimizer.state_dict(), tmp_path / "checkpoint-10" / "optimizer.pt")
    with pytest.raises(InvalidInput, match="do not fit"):
        record_of_trainer(tmp_path)
    assert record_of_trainer(tmp_path, optimizer="sgd").optimizer.name == "sgd"
    (tmp_path / "checkpoint-10" / "optimizer.pt").write_bytes(b"no state")
    with pytest.raises(InvalidInput, match="cannot be read"):
        record_of_trainer(tmp_path)
