"""Tiny random models of every architecture, and explicit gradients to hold captures against."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import transformers as t
from transformers.pytorch_utils import Conv1D

from influence.basis import Basis, LayerBasis
from influence.curvature import random_orthonormal
from influence.encoder import GradientEncoder
from influence.layers import Coverage, coverage, select_layers
from influence.model import LoadedModel
from influence.task import reached_layers
from influence.task_causal import LanguageModelLoss
from influence.tokens import TokenSequence

VOCABULARY = 60
COMMON = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 32,
    # The default of .02 leaves so small a network nearly linear and its gradients tiny.
    "initializer_range": 0.3,
}
GROUPED = COMMON | {"num_key_value_heads": 1}


@dataclass(frozen=True)
class Made:
    """A class of transformers with the settings of its config."""

    model: str
    settings: dict[str, Any]

    def __call__(self, **settings: Any) -> Any:
        """A model with random weights, always the same."""
        torch.manual_seed(0)
        kind = getattr(t, self.model)
        model = kind(kind.config_class(**(self.settings | settings))).eval()
        for name, parameter in model.named_parameters():
            # What starts at 0 or 1 in every instance would hide a missing bias, scale or router.
            if parameter.dim() < 2 or "router" in name or ".gate.weight" in name:
                parameter.data += 0.2 * torch.randn(parameter.shape)
        return model


CAUSAL = {
    "gpt2": Made(
        "GPT2LMHeadModel",
        {
            "vocab_size": VOCABULARY,
            "n_embd": 16,
            "n_layer": 2,
            "n_head": 2,
            "n_positions": 32,
            "initializer_range": 0.3,
        },
    ),
    "llama": Made("LlamaForCausalLM", GROUPED),
    "llama-tied": Made("LlamaForCausalLM", GROUPED | {"tie_word_embeddings": True}),
    "mistral": Made("MistralForCausalLM", GROUPED | {"sliding_window": 6}),
    "qwen2": Made("Qwen2ForCausalLM", GROUPED),
    "qwen3": Made("Qwen3ForCausalLM", GROUPED | {"head_dim": 8}),
    "gemma2": Made(
        "Gemma2ForCausalLM",
        GROUPED
        | {
            "head_dim": 8,
            "query_pre_attn_scalar": 8,
            "final_logit_softcapping": 2.0,
            "attn_logit_softcapping": 1.5,
            "sliding_window": 6,
        },
    ),
    "gemma3": Made(
        "Gemma3ForCausalLM",
        GROUPED | {"head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 6},
    ),
    "pythia": Made("GPTNeoXForCausalLM", COMMON),
    "opt": Made(
        "OPTForCausalLM",
        {
            "vocab_size": VOCABULARY,
            "hidden_size": 16,
            "ffn_dim": 24,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "max_position_embeddings": 32,
            "word_embed_proj_dim": 12,  # with project_in and project_out, as OPT-350m
            "init_std": 0.3,
        },
    ),
    "phi": Made("PhiForCausalLM", COMMON),
    "falcon": Made(
        "FalconForCausalLM",
        {
            "vocab_size": VOCABULARY,
            "hidden_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "new_decoder_architecture": False,
            "multi_query": True,
            "bias": False,
            "alibi": False,
            "initializer_range": 0.3,
        },
    ),
    "mixtral": Made(
        "MixtralForCausalLM",
        GROUPED | {"num_local_experts": 4, "num_experts_per_tok": 2},
    ),
    "qwen2-moe": Made(
        "Qwen2MoeForCausalLM",
        GROUPED
        | {
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 12,
            "shared_expert_intermediate_size": 20,
        },
    ),
    "qwen3-moe": Made(
        "Qwen3MoeForCausalLM",
        GROUPED
        | {
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 12,
            "head_dim": 8,
        },
    ),
    "gpt-oss": Made(  # transposed expert weights with biases
        "GptOssForCausalLM",
        GROUPED | {"num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 8},
    ),
    "cohere": Made("CohereForCausalLM", GROUPED | {"logit_scale": 0.25}),
    "granite": Made("GraniteForCausalLM", GROUPED | {"logits_scaling": 4.0}),
}


@pytest.fixture(params=CAUSAL)
def causal(request):
    """A tiny causal language model of each architecture."""
    return CAUSAL[request.param]()


@pytest.fixture(scope="session")
def new_causal() -> Callable[..., Any]:
    """A tiny causal language model by its name in `CAUSAL`."""
    return lambda name, **settings: CAUSAL[name](**settings)


def explicit_gradients(
    model: torch.nn.Module, loss: Callable[[torch.nn.Module], torch.Tensor]
) -> dict[str, torch.Tensor]:
    """The gradient of every parameter of a copy, by plain autograd in float64."""
    twin = copy.deepcopy(model).double().eval().requires_grad_(True)
    if hasattr(getattr(twin, "config", None), "_experts_implementation"):
        twin.config._experts_implementation = "eager"  # the others know no float64
    loss(twin).backward()
    return {
        name: torch.zeros_like(p) if p.grad is None else p.grad
        for name, p in twin.named_parameters(remove_duplicate=False)
    }


@pytest.fixture(scope="session")
def autograd():
    """`explicit_gradients`."""
    return explicit_gradients


def layer_gradient(
    model: torch.nn.Module, gradients: dict[str, torch.Tensor], layer: str
) -> torch.Tensor:
    """``dL/dW`` of a layer, ``[d_out, d_in]``, from the gradients of the parameters."""
    modules = dict(model.named_modules())
    if layer not in modules:  # a part of its module
        module, _, number = layer.rpartition(".")
        if module in modules:  # a group of a convolution
            return (
                gradients[f"{module}.weight"].chunk(modules[module].groups)[int(number)].flatten(1)
            )
        gradient = gradients[module][int(number)]  # an expert
        return gradient.T if modules[module.rpartition(".")[0]].is_transposed else gradient
    gradient = gradients[f"{layer}.weight"]
    if isinstance(modules[layer], Conv1D | torch.nn.Embedding):  # stored the other way round
        return gradient.T
    return gradient[:, None] if gradient.dim() == 1 else gradient.flatten(1)


def random_basis(task, example, patterns=("*",), *, rank=3, target="all", dims=10**6) -> Basis:
    """Random orthonormal projections of every layer that the loss reaches, nothing whitened."""
    selected = select_layers(task.model, patterns, target=target)
    reached = reached_layers(task, selected, example)
    number = {layer.name: i for i, layer in enumerate(reached.layers)}
    bases = []
    for layer in reached.layers:
        leader = reached.leaders[layer.name]
        r_in, r_out = min(rank, layer.d_in), min(rank, layer.d_out)
        bases.append(
            LayerBasis(
                layer.name,
                leader,
                random_orthonormal(r_in, layer.d_in, seed=number[leader]).float(),
                random_orthonormal(r_out, layer.d_out, seed=1000 + number[layer.name]).float(),
                torch.ones(r_out, r_in, dtype=torch.float64),
            )
        )
    return Basis(tuple(bases), damping=0.1, dims=dims, seed=7)


@pytest.fixture(scope="session")
def new_basis():
    """`random_basis`."""
    return random_basis


@dataclass(frozen=True)
class Checked:
    """What was held against autograd."""

    basis: Basis
    coverage: Coverage


def check_against_autograd(
    task, examples, loss, patterns=("*",), *, target="all", tolerance=1e-5
) -> Checked:
    """Captured projected gradients of a batch are those of explicit gradients, layer by layer.

    Args:
        task: Model and loss.
        examples: Of several lengths, so that the batch is padded.
        loss: Of a float64 twin of the model and one example, by the plainest means.
        patterns: Layers to attribute.
        target: With adapters, which layers.
        tolerance: Largest error of an example and layer, relative to the example's whole gradient.
    """
    before = state_of(task.model)
    basis = random_basis(task, examples[0], patterns, target=target)
    got, _ = GradientEncoder(task, basis).coordinates(examples)
    assert state_of(task.model) == before
    for row, example in enumerate(examples):
        gradients = explicit_gradients(task.model, lambda twin, e=example: loss(twin, e))
        blocks = []
        for layer in basis.layers:
            gradient = layer_gradient(task.model, gradients, layer.name)
            blocks.append((layer.p_out.double() @ gradient @ layer.p_in.double().T).flatten())
        whole = torch.cat(blocks)
        assert whole.norm() > 1e-3  # or nothing would be proved
        assert (got[row].double() - whole).norm() < tolerance * whole.norm()
        for layer, want, have in zip(
            basis.layers, blocks, got[row].split([len(b) for b in blocks]), strict=True
        ):
            error = (have.double() - want).norm()
            # Gradients of a layer that are small by cancellation keep the rounding of the large.
            assert error < tolerance * (want.norm() + 0.1 * whole.norm()), layer.name
    layers = [layer.layer for layer in basis.layers]
    return Checked(basis, coverage(task.model, layers, target=target))


@pytest.fixture(scope="session")
def against_autograd():
    """`check_against_autograd`."""
    return check_against_autograd


def state_of(model: torch.nn.Module) -> tuple[Any, ...]:
    """All that a caller could notice about a model, comparable with ``==``."""
    return (
        [(name, m.training, sorted(vars(m))) for name, m in model.named_modules()],
        [(n, len(m._forward_hooks), len(m._forward_pre_hooks)) for n, m in model.named_modules()],
        [
            (n, p.requires_grad, p.grad is None, id(p), p._version)
            for n, p in model.named_parameters()
        ],
    )


@pytest.fixture
def as_task():
    """A causal language model as a task."""

    def make(model, *, dtype="float32", **settings) -> LanguageModelLoss:
        return LanguageModelLoss(
            LoadedModel(model, None, "tiny", "", "", torch.device("cpu"), dtype, 32), **settings
        )

    return make


def random_sequences(lengths=(7, 12, 4), *, seed=0) -> list[TokenSequence]:
    """Random tokens, all of them targets but for a prompt in the second sequence."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for i, length in enumerate(lengths):
        ids = torch.randint(3, VOCABULARY, (length,), generator=generator).tolist()
        first = 5 if i == 1 else 1
        found.append(TokenSequence(ids, [t >= first for t in range(length)], [(-1, -1)] * length))
    return found


@pytest.fixture(scope="session")
def new_sequences():
    """`random_sequences`."""
    return random_sequences


def next_token_loss(model: torch.nn.Module, sequence: TokenSequence) -> torch.Tensor:
    """Summed negative log-likelihood of the targets of one sequence, from whole logits."""
    ids = torch.tensor([sequence.input_ids])
    log_probs = model(input_ids=ids, use_cache=False).logits[0].log_softmax(dim=-1)
    chosen = [log_probs[t - 1, i] for t, i in enumerate(sequence.input_ids) if sequence.targets[t]]
    return -torch.stack(chosen).sum()


@pytest.fixture(scope="session")
def language_loss():
    """`next_token_loss`."""
    return next_token_loss


@pytest.fixture
def lively():
    """Noise on every weight, and on the statistics of batch norms."""

    def run(model: torch.nn.Module, *, seed: int = 0) -> torch.nn.Module:
        generator = torch.Generator().manual_seed(seed)
        for p in model.parameters():
            p.data += 0.2 * torch.randn(p.shape, generator=generator)
        for name, b in model.named_buffers():
            if "running" in name:
                b.data += 0.3 * torch.rand(b.shape, generator=generator)
        return model.eval()

    return run
