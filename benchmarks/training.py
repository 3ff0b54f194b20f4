"""What does logging every example's gradient cost a training?

    python -m benchmarks.training --layers 8 --repeats 7

Whole training steps (forward, backward, AdamW) of one Llama with and without the logger at each
rank, interleaved in one process; medians, and the share that logging adds. Beside the time on the
clock stands the processor's, which other work on the machine changes less.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from indexer.logger import Logger


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--width", type=int, default=576)
    parser.add_argument("--vocabulary", type=int, default=8192)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--ranks", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=options.vocabulary,
            hidden_size=options.width,
            intermediate_size=options.width * 8 // 3,
            num_hidden_layers=options.layers,
            num_attention_heads=options.width // 64,
            num_key_value_heads=max(1, options.width // 192),
            tie_word_embeddings=True,
        )
    )
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    ids = torch.randint(0, options.vocabulary, (options.batch, options.length))
    batch = {"input_ids": ids, "labels": ids}
    clock: dict[int, list[float]] = {rank: [] for rank in (0, *options.ranks)}
    processor: dict[int, list[float]] = {rank: [] for rank in (0, *options.ranks)}

    def step(log: Logger | None) -> None:
        model(**batch).loss.backward()
        if log is not None:
            log(range(options.batch), batch)
        optimizer.step()
        optimizer.zero_grad()

    with tempfile.TemporaryDirectory() as folder:
        logs = {rank: Logger(model, Path(folder) / str(rank), rank=rank) for rank in options.ranks}
        for repeat in range(options.repeats + 1):  # the first of each warms up
            for rank in clock:
                if rank:
                    with logs[rank]:
                        begun, used = time.perf_counter(), time.process_time()
                        step(logs[rank])
                else:
                    begun, used = time.perf_counter(), time.process_time()
                    step(None)
                if repeat:
                    clock[rank].append(time.perf_counter() - begun)
                    processor[rank].append(time.process_time() - used)
    print(
        f"Llama of {options.layers} layers of width {options.width}, {options.batch} × "
        f"{options.length} tokens a step, {options.threads} threads, medians of {options.repeats}\n"
    )
    print("| step | clock, s | added | processor, s | added |\n| --- | ---: | ---: | ---: | ---: |")
    for rank in clock:
        name = f"logged at rank {rank}" if rank else "plain"
        cells = []
        for times in (clock, processor):
            found = statistics.median(times[rank])
            added = found / statistics.median(times[0]) - 1
            cells += [f"{found:.3f}", f"{added:+.1%}" if rank else "–"]
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
