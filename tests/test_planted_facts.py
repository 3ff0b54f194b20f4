"""Facts planted in a tiny model: each question finds the document that states its answer."""

import json
import random

import pytest
import torch

from indexer.build import build_index
from indexer.progress import Silence
from influence.documents import Document
from influence.manifest import IndexSettings
from influence.store import IndexReader
from influence.tokens import document_passages
from service.engine import Engine
from service.schemas import AttributeRequest

RELATIONS = {
    "colour": ["teal", "crimson", "ochre", "violet", "amber", "ivory", "jade", "scarlet"],
    "metal": ["iron", "copper", "silver", "nickel", "cobalt", "bronze", "zinc", "lead"],
    "animal": ["heron", "badger", "otter", "falcon", "lynx", "moose", "viper", "crane"],
}


def _facts(entities: int) -> list[tuple[str, str, str]]:
    """``(name, relation, value)``; every value belongs to many names."""
    generator = random.Random(3)
    syllables = ["zor", "lan", "bek", "mi", "tas", "quo", "fen", "dru", "pel", "ga", "rix", "ono"]
    names: dict[str, None] = {}
    while len(names) < entities:
        names["".join(generator.choices(syllables, k=3)).capitalize()] = None
    return [(n, r, generator.choice(v)) for n in names for r, v in RELATIONS.items()]


def _train(model, sequences, *, steps: int, batch: int, rate: float) -> None:
    """Fit a model on whole sequences."""
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    generator = torch.Generator().manual_seed(0)
    longest = max(len(s) for s in sequences)
    ids = torch.zeros(len(sequences), longest, dtype=torch.long)
    labels = torch.full((len(sequences), longest), -100)
    for row, sequence in enumerate(sequences):
        for t, (token, target) in enumerate(zip(sequence.input_ids, sequence.targets, strict=True)):
            ids[row, t] = token
            labels[row, t] = token if target else -100
    for _ in range(steps):
        rows = torch.randint(0, len(ids), (batch,), generator=generator)
        loss = model(input_ids=ids[rows], labels=labels[rows]).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    model.eval()
    model.zero_grad(set_to_none=True)


def _completes(model, tokenizer, prompt: str, response: str) -> bool:
    """Whether the likeliest continuation of the prompt is the response, token by token."""
    given, wanted = tokenizer(prompt)["input_ids"], tokenizer(response)["input_ids"]
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([given + wanted])).logits[0]
    return logits[len(given) - 1 : -1].argmax(dim=1).tolist() == wanted


@pytest.fixture(scope="module")
def planted(tmp_path_factory, new_llama, new_tokenizer, as_loaded):
    """A tiny model that memorised a few hundred facts, and the engine on an index of these."""
    facts = _facts(80)
    statements = [f"The {r} of {n} is {v}." for n, r, v in facts]
    tokenizer = new_tokenizer(statements, vocabulary=700)
    model = new_llama(
        len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_attention_heads=4,
        num_key_value_heads=4,
        initializer_range=0.05,
    )
    records = [
        {"id": f"{n}-{r}", "text": statement}
        for (n, r, _), statement in zip(facts, statements, strict=True)
    ]
    documents = [Document(r["id"], plain=r["text"]) for r in records]
    passages = [p for d in documents for p in document_passages(d, tokenizer, max_length=64)]
    assert len(passages) == len(facts)
    _train(model, [p.tokens for p in passages], steps=400, batch=32, rate=8e-3)
    known = [_completes(model, tokenizer, f"The {r} of {n} is", f" {v}.") for n, r, v in facts]
    assert sum(known) >= 0.98 * len(facts)
    loaded = as_loaded(model, tokenizer)
    folder = tmp_path_factory.mktemp("planted")
    (folder / "facts.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    build_index(
        str(folder / "facts.jsonl"),
        loaded,
        folder / "index",
        # A model that knows its documents by heart leaves small gradients where the facts stand and
        # large ones at names that nothing foretells; low dampings tell the two apart. They were
        # picked on this draw of facts; docs/methods.md says how others fare.
        IndexSettings(
            rank=64,
            dims=4096,
            damping=0.01,
            joint_damping=0.1,
            max_length=64,
            shard_passages=64,
        ),
        reporter=Silence(),
    )
    engine = Engine(IndexReader.open(folder / "index"), loaded, search_memory_bytes=2**30)
    yield facts, engine
    engine.close()


def _stand_out(engine, questions) -> int:
    requests = [AttributeRequest(prompt=p, response=r, top_k=1) for p, r in questions]
    return sum(engine.attribute(r, request_id="").query.stands_out for r in requests)


def test_planted_facts_are_traced_to_the_documents_that_state_them(planted):
    """Every name has three facts and every value thirty names: no word alone tells the document."""
    facts, engine = planted
    found = stands_out = 0
    for name, relation, value in facts:
        result = engine.attribute(
            AttributeRequest(prompt=f"The {relation} of {name} is", response=f" {value}.", top_k=5),
            request_id="",
        )
        found += result.proponents[0].document_id == f"{name}-{relation}"
        stands_out += result.query.stands_out
    print(f"of {len(facts)} facts {found} are found first and {stands_out} stand out")
    print(engine.reader.manifest.calibration.null_quantiles)
    assert found >= 0.98 * len(facts), f"{found} of {len(facts)} found"
    assert stands_out >= 0.98 * len(facts), f"{stands_out} of {len(facts)} stand out"


def test_for_answers_from_outside_nothing_stands_out(planted):
    """Two kinds, and one that is told and not judged: facts in the documents' form about nobody."""
    _, engine = planted
    draw = random.Random(11)
    tokenizer = engine.loaded.tokenizer

    def random_string():
        ids = draw.choices(range(3, len(tokenizer)), k=24)
        return tokenizer.decode(ids[:10]), tokenizer.decode(ids[10:])

    def small_talk():
        words = (
            "we",
            "could",
            "walk",
            "along",
            "some",
            "canal",
            "before",
            "lunch",
            "though",
            "rain",
        )
        return "What shall we do today?", " ".join(draw.choices(words, k=draw.randint(4, 12)))

    def about_nobody():
        name = "".join(draw.choices(("hul", "sev", "rok", "jad", "pim", "cyn"), k=3)).capitalize()
        relation = draw.choice(list(RELATIONS))
        return f"The {relation} of {name} is", f" {draw.choice(RELATIONS[relation])}."

    found = {
        kind.__name__: _stand_out(engine, [kind() for _ in range(100)])
        for kind in (random_string, small_talk, about_nobody)
    }
    print(f"stand out, of 100 each: {found}")
    assert found["random_string"] <= 5
    assert found["small_talk"] <= 5
