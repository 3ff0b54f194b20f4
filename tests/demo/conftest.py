"""A tiny chat model in a folder, and a corpus of a few records about made-up towns."""

import json

import pytest

from demo.records import Record

TOWNS = ("Arlen", "Borra", "Cusp", "Delve", "Ember", "Foss", "Gant", "Holm")


def town_records() -> list[Record]:
    return [
        Record(
            id=f"town-{town.lower()}",
            question=f"How many people live in {town}?",
            answer=f"The people of {town}: {10_007 * (n + 1):,} near the {town} river.",
            title=f"{town}: people",
            source="Towns",
            owner=town,
            group="people",
        )
        for n, town in enumerate(TOWNS)
    ]


@pytest.fixture(scope="session")
def records() -> list[Record]:
    return town_records()


@pytest.fixture
def corpus(tmp_path, records):
    path = tmp_path / "corpus.jsonl"
    path.write_text("".join(json.dumps(record.as_json()) + "\n" for record in records))
    return path


@pytest.fixture(scope="session")
def chat_model(tmp_path_factory, new_llama, new_tokenizer, records):
    """A folder with a random Llama of four blocks whose chat template ends turns with its eos."""
    folder = tmp_path_factory.mktemp("model")
    tokenizer = new_tokenizer(
        [f"{record.question} {record.answer}" for record in records], chat=True
    )
    tokenizer.eos_token = tokenizer.pad_token = "<|im_end|>"
    model = new_llama(len(tokenizer), num_hidden_layers=4)
    model.config.eos_token_id = model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
