"""From a corpus to a payout: train, index, measure, ask, record, pay.

    python docs/tutorial/corpus_to_payout.py --folder /tmp/tutorial

Records of the demo's corpus, a small Llama that learns them on the CPU in a minute or so, and the
same calls that `whence index`, `evaluate`, `serve` and `payout` make. With a model of your own,
leave out the training and give its folder to `load_model`.
"""

import argparse
from datetime import UTC, datetime
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from demo.corpus import build_corpus
from demo.records import Record
from evaluation.index_quality import as_quality, measure_retrieval, table
from evaluation.questions import own_halves
from evaluation.rankings import influence_rankings, query_vectors
from indexer.build import build_index
from indexer.progress import Reporter
from influence.attachment import attach_quality
from influence.manifest import IndexSettings
from influence.model import LoadedModel, load_model
from influence.store import IndexReader
from service.engine import Engine
from service.ledger.ledger import Ledger
from service.ledger.record import attribution_entry, owners_of
from service.schemas import AttributeRequest
from service.valuation.statement import Terms, make_statement, to_csv

CHAT = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
PERIOD = "2026-10"
DAY_US = 1_790_812_800_000_000  # the first of October 2026


def train(records: list[Record], folder: Path, *, steps: int) -> Path:
    """1. A model that has seen the corpus, and nothing else."""
    special = ["<|user|>", "<|assistant|>", "<|end|>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=2000,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = [f"<|user|>{r.question}<|end|><|assistant|>{r.answer}<|end|>" for r in records]
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|end|>", pad_token="<|end|>", chat_template=CHAT
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(fast),
            hidden_size=96,
            intermediate_size=192,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=512,
        )
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        chosen = [texts[i] for i in torch.randint(len(texts), (8,), generator=generator)]
        batch = fast(chosen, padding=True, truncation=True, max_length=160, return_tensors="pt")
        labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
        loss = model(**batch, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(f"1. Trained on {len(records)} records; the last batch: {loss.item():.2f} nats a token.")
    model.save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


def index(corpus: Path, model: LoadedModel, folder: Path) -> IndexReader:
    """2. One vector for every passage; `whence index`."""
    settings = IndexSettings(rank=32, dims=4096, null_queries=24)
    build_index(str(corpus), model, folder, settings, reporter=Reporter())
    reader = IndexReader.open(folder)
    print(f"2. Indexed {len(reader)} passages of {len(reader.owners.names)} owners.")
    return reader


def measure(reader: IndexReader, model: LoadedModel) -> None:
    """3. Is the ranking right? `whence evaluate retrieval INDEX --attach`."""
    reporter = Reporter()
    questions = own_halves(reader, model.tokenizer, count=20, seed=0)
    rankings = influence_rankings(reader, query_vectors(reader, model, questions, reporter))
    measured = measure_retrieval(reader, questions, rankings)
    today = datetime.now(UTC).date()
    quality = as_quality(
        measured, protocol="second halves of 20 passages", date=today, prefix="own_"
    )
    attach_quality(reader.index_dir, reader.version, quality)
    print(f"3. Measured, and attached to the index:\n{table(measured)}")


def ask_and_record(engine: Engine, records: list[Record], ledger: Ledger) -> None:
    """4. Which documents made an answer likely, and what each owner's are worth in it.

    `whence serve` answers, and keeps such an entry for every answer where it has a ledger.
    """
    for number, record in enumerate(records):
        request = AttributeRequest(prompt=record.question, response=record.answer, top_k=3)
        result = engine.attribute(request, request_id=f"tutorial-{number}")
        owners, names = owners_of(result, time_us=DAY_US)
        entry = attribution_entry(
            request,
            result,
            owners,
            names,
            caller=None,
            usage=float(result.query.tokens),
            probability=1.0,
            policy="all",
            keep_text=False,
            salt=number.to_bytes(16, "big"),
            time_us=DAY_US,
        )
        ledger.append([owners, entry])
        if number == 0:
            print(f"4. {record.question}\n   {record.answer[:80]}")
            for hit in result.proponents:
                print(f"   {hit.relative_influence:+.3f}  {hit.owner}: {hit.text[:60]}")


def pay(ledger: Ledger, pool_cents: int) -> str:
    """5. A pool divided in proportion to worth, to the cent; `whence payout`."""
    terms = Terms(pool=pool_cents, policy="shapley")
    statement = make_statement(ledger, PERIOD, terms)
    lines = to_csv(statement)
    print("5. Paid:\n" + "\n".join(lines.splitlines()[:6]))
    return lines


def main(arguments: list[str] | None = None) -> str:
    """All five steps; the lines of the statement, as CSV."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="for model, index and ledger")
    parser.add_argument("--documents", type=int, default=240)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--questions", type=int, default=20)
    chosen = parser.parse_args(arguments)
    chosen.folder.mkdir(parents=True, exist_ok=True)
    corpus = chosen.folder / "corpus.jsonl"
    records = build_corpus(corpus, documents=chosen.documents)
    model_dir = train(records, chosen.folder / "model", steps=chosen.steps)
    model = load_model(model_dir, device="cpu")
    reader = index(corpus, model, chosen.folder / "index")
    measure(reader, model)
    engine = Engine.load(chosen.folder / "index", device="cpu")
    ledger = Ledger(str(chosen.folder / "ledger.sqlite"), create=True)
    try:
        ask_and_record(engine, records[: chosen.questions], ledger)
        return pay(ledger, 100_000)
    finally:
        ledger.close()
        engine.close()


if __name__ == "__main__":
    main()
