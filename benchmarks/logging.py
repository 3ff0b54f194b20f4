"""What does logging cost beside training? Forward, training step and logging on the same batches.

    python -m benchmarks.logging --model smollm2 --dtype float32 --repeats 5

(As a module: a script named `logging` would hide the standard one.) Interleaved in one process,
medians; peak memory of each in a process of its own. Weights are random, which changes no time, so
nothing is downloaded. The tuned training step has the same data type, the same batches and a
chunked loss like logging's; the plain one is transformers as it comes, in float32. Logging ends
with fp16 unit vectors on disk.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from influence.basis import Basis, LayerBasis
from influence.curvature import random_orthonormal
from influence.encoder import Batch, GradientEncoder, LanguageModelLoss, input_leaders
from influence.layers import select_layers
from influence.loss import ROWS_PER_CHUNK
from influence.model import LoadedModel, convert_products
from influence.tokens import TokenSequence
from influence.whitening import LowRankWhitening

VARIANTS = ("forward", "training step, plain", "training step, tuned", "logging")
JOINT_RANK = 320  # as after a fit on the default sample


def build_model(name: str) -> Any:
    if name == "gpt2":
        return GPT2LMHeadModel(GPT2Config())
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=49_152,
            hidden_size=576,
            intermediate_size=1536,
            num_hidden_layers=30,
            num_attention_heads=9,
            num_key_value_heads=3,
            tie_word_embeddings=True,
            max_position_embeddings=2048,
        )
    )


def load(model: Any, dtype: str) -> LoadedModel:
    return LoadedModel(
        model=model.eval(),
        tokenizer=None,
        name="random",
        weights_sha256="",
        tokenizer_sha256="",
        device=torch.device("cpu"),
        dtype=dtype,
        context_length=1024,
    )


def make_encoder(loaded: LoadedModel, rank: int, dims: int) -> GradientEncoder:
    layers = select_layers(loaded.model)
    leaders = input_leaders(loaded, layers)
    p_in = {x.name: random_orthonormal(rank, x.d_in, seed=0).float() for x in layers}
    bases = tuple(
        LayerBasis(
            layer.name,
            leaders[layer.name],
            p_in[leaders[layer.name]],
            random_orthonormal(rank, layer.d_out, seed=1).float(),
            torch.rand(rank, rank, dtype=torch.float64),
        )
        for layer in layers
    )
    basis = Basis(bases, 0.1, dims, 0)
    sample = torch.randn(JOINT_RANK, basis.vector_dims)
    joint = LowRankWhitening.fit(sample, damping=1.0)
    return GradientEncoder(loaded, Basis(bases, 0.1, dims, 0, joint))


def make_batches(vocabulary: int, rows: int, tokens: int, count: int) -> list[list[TokenSequence]]:
    generator = torch.Generator().manual_seed(0)
    return [
        [
            TokenSequence(
                torch.randint(0, vocabulary, (tokens,), generator=generator).tolist(),
                [False] + [True] * (tokens - 1),
                [(0, 0)] * tokens,
            )
            for _ in range(rows)
        ]
        for _ in range(count)
    ]


class _HeadLoss(torch.autograd.Function):
    """The tuned step's loss: as logging's, and the head's weight gradient in the same visit."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, target: Tensor) -> Tensor:
        grad_hidden, grad_weight = torch.empty_like(hidden), torch.zeros_like(weight)
        product = weight.to(hidden.dtype)
        total = torch.zeros(())
        for start in range(0, len(hidden), ROWS_PER_CHUNK):
            rows = slice(start, start + ROWS_PER_CHUNK)
            logits = (hidden[rows] @ product.T).float()
            wanted = target[rows, None]
            of_target, peak = logits.gather(1, wanted), logits.amax(1, keepdim=True)
            residual = logits.sub_(peak).exp_()
            summed = residual.sum(1, keepdim=True)
            total += (peak + summed.log() - of_target).sum()
            residual /= summed
            residual.scatter_add_(1, wanted, torch.full_like(wanted, -1, dtype=residual.dtype))
            residual = residual.to(hidden.dtype)
            grad_hidden[rows] = residual @ product
            grad_weight += residual.T @ hidden[rows]
        ctx.save_for_backward(grad_hidden, grad_weight)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        grad_hidden, grad_weight = ctx.saved_tensors
        return grad_hidden, grad_weight, None


def make_variants(arguments: argparse.Namespace, folder: Path, only: str | None) -> dict[str, Any]:
    """Each variant as a function of a batch of sequences; only what is wanted is built."""
    wanted = VARIANTS if only is None else (only,)
    run: dict[str, Callable[[list[TokenSequence]], None]] = {}
    torch.manual_seed(0)
    trained = build_model(arguments.model) if any("training" in v for v in wanted) else None
    if trained is not None:
        plain, tuned = _training_steps(trained, arguments.dtype)
        run |= {"training step, plain": plain, "training step, tuned": tuned}
    if any("training" not in v for v in wanted):
        model = build_model(arguments.model)
        if arguments.dtype == "bfloat16":
            convert_products(model)
        loaded = load(model, arguments.dtype)
        loss = LanguageModelLoss(loaded)

        def forward(sequences: list[TokenSequence]) -> None:
            with torch.no_grad():
                loss.token_losses(Batch.of(sequences, loaded.device))

        run["forward"] = forward
        if "logging" in wanted:
            run["logging"] = _logging(loaded, arguments, folder)
    return {name: run[name] for name in wanted}


def _training_steps(model: Any, dtype: str) -> tuple[Any, Any]:
    def plain(sequences: list[TokenSequence]) -> None:
        ids = torch.tensor([s.input_ids for s in sequences])
        model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
        model.zero_grad(set_to_none=True)

    def tuned(sequences: list[TokenSequence]) -> None:
        batch = Batch.of(sequences, torch.device("cpu"))
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == "bfloat16"):
            trunk = model.base_model(input_ids=batch.input_ids, use_cache=False)
            hidden = trunk.last_hidden_state[batch.rows, batch.columns]
        if dtype == "bfloat16":
            hidden = hidden.to(torch.bfloat16)
        loss = _HeadLoss.apply(hidden, model.get_output_embeddings().weight, batch.targets)
        loss.backward()
        model.zero_grad(set_to_none=True)

    return plain, tuned


def _logging(loaded: LoadedModel, arguments: argparse.Namespace, folder: Path) -> Any:
    encoder = make_encoder(loaded, arguments.rank, arguments.dims)

    def logging(sequences: list[TokenSequence]) -> None:
        vectors = encoder.encode(sequences).vectors
        units = torch.nn.functional.normalize(vectors, dim=1).half().numpy()
        path = folder / "vectors.npy"
        with path.open("wb") as stream:
            np.save(stream, units)
            stream.flush()
            os.fsync(stream.fileno())

    return logging


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        run = make_variants(arguments, Path(folder), arguments.only)
        vocabulary = 50_257 if arguments.model == "gpt2" else 49_152
        groups = make_batches(vocabulary, arguments.rows, arguments.tokens, arguments.repeats + 1)
        seconds: dict[str, list[float]] = {name: [] for name in run}
        for number, sequences in enumerate(groups):
            for name, function in run.items():
                begun = time.perf_counter()
                function(sequences)
                if number:  # the first batch warms up
                    seconds[name].append(time.perf_counter() - begun)
        return {"seconds": seconds, "peak_bytes": peak_bytes()}


def peak_bytes() -> int:
    """Peak of this program's own memory; `ru_maxrss` would inherit that of the parent process."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def sketch_share(arguments: argparse.Namespace, logging_s: float) -> float:
    """Seconds of sketch and joint whitening of one batch, as a share of logging it."""
    encoder = make_encoder(
        load(build_model(arguments.model), "float32"), arguments.rank, arguments.dims
    )
    coordinates = torch.randn(arguments.rows, encoder.basis.coordinates)
    taken = []
    for _ in range(5):
        begun = time.perf_counter()
        encoder.basis.whitened(coordinates)
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken) / logging_s


def peak_of(variant: str) -> float:
    """GB of a process that runs one variant alone."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.logging",
        *sys.argv[1:],
        "--only",
        variant,
        "--repeats",
        "1",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)["peak_bytes"] / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=("smollm2", "gpt2"), default="smollm2")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--rank", type=int, default=64)
    parser.add_argument("--dims", type=int, default=4096)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", choices=VARIANTS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    result = measure(arguments)
    if arguments.only:
        print(json.dumps(result))
        return
    medians = {name: statistics.median(values) for name, values in result["seconds"].items()}
    size = arguments.rows * arguments.tokens
    print(
        f"{arguments.model}, {arguments.dtype}, rank {arguments.rank}, {arguments.dims} dims, "
        f"{arguments.rows} x {arguments.tokens} tokens, {arguments.threads} threads, "
        f"{torch.backends.cpu.get_cpu_capability()}, {platform.machine()}, "
        f"torch {torch.__version__}"
    )
    print("| | tokens/s | of the tuned step | of the plain step | spread | peak GB |")
    print("|---|---|---|---|---|---|")
    for name, median in medians.items():
        values = result["seconds"][name]
        spread = (max(values) - min(values)) / median
        tuned = median / medians["training step, tuned"]
        plain = median / medians["training step, plain"]
        print(
            f"| {name} | {size / median:.0f} | {tuned:.2f} | {plain:.2f} | {spread:.0%} "
            f"| {peak_of(name):.2f} |"
        )
    share = sketch_share(arguments, medians["logging"])
    print(f"\nSketch and joint whitening: {share:.1%} of logging.")


if __name__ == "__main__":
    main()
