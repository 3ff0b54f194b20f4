"""Many small Llama models at once: their weights stacked, their products batched.

Retraining a hundred tiny models one after the other spends its time in calls, not in products.
Here every parameter has a leading axis ``S``, one slice a model, and a linear layer of all models
is one `torch.bmm`. The mathematics is that of transformers' ``LlamaForCausalLM`` under the same
parameter names, so a slice loads into the real class and everything else of Whence sees an
ordinary model (a test holds the logits of the two together).

Letters: S models, B sequences, T tokens, d widths, H heads, V words.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812
from transformers import LlamaConfig, LlamaForCausalLM

Parameters = dict[str, Tensor]  # name in LlamaForCausalLM -> [S, *shape]


@dataclass(frozen=True)
class LlamaShape:
    """Sizes of one model; the head is not tied to the embedding."""

    vocabulary: int
    width: int = 96
    mlp_width: int = 96
    layers: int = 3
    heads: int = 4
    kv_heads: int = 2
    context: int = 64
    rope_theta: float = 10_000.0
    norm_eps: float = 1e-6

    @property
    def head_width(self) -> int:
        """Width of one attention head."""
        return self.width // self.heads

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name in LlamaForCausalLM -> shape of one model's parameter."""
        d, m, kv = self.width, self.mlp_width, self.kv_heads * self.head_width
        shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (self.vocabulary, d)}
        for i in range(self.layers):
            p = f"model.layers.{i}"
            shapes |= {
                f"{p}.self_attn.q_proj.weight": (d, d),
                f"{p}.self_attn.k_proj.weight": (kv, d),
                f"{p}.self_attn.v_proj.weight": (kv, d),
                f"{p}.self_attn.o_proj.weight": (d, d),
                f"{p}.mlp.gate_proj.weight": (m, d),
                f"{p}.mlp.up_proj.weight": (m, d),
                f"{p}.mlp.down_proj.weight": (d, m),
                f"{p}.input_layernorm.weight": (d,),
                f"{p}.post_attention_layernorm.weight": (d,),
            }
        shapes["model.norm.weight"] = (d,)
        shapes["lm_head.weight"] = (self.vocabulary, d)
        return shapes

    def initial(self, seeds: Sequence[int], *, std: float) -> Parameters:
        """Random weights of one model for each seed: normal with ``std``, norms 1."""
        stacked: dict[str, list[Tensor]] = {}
        for seed in seeds:
            generator = torch.Generator().manual_seed(seed)
            for name, shape in self.parameter_shapes().items():
                if len(shape) == 1:
                    values = torch.ones(shape)
                else:
                    values = torch.randn(shape, generator=generator) * std
                stacked.setdefault(name, []).append(values)
        return {name: torch.stack(values) for name, values in stacked.items()}

    def model(self, parameters: Parameters, number: int) -> LlamaForCausalLM:
        """One slice as a model of transformers, in evaluation mode."""
        config = LlamaConfig(
            vocab_size=self.vocabulary,
            hidden_size=self.width,
            intermediate_size=self.mlp_width,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.kv_heads,
            max_position_embeddings=self.context,
            rms_norm_eps=self.norm_eps,
            rope_parameters={"rope_type": "default", "rope_theta": self.rope_theta},
            tie_word_embeddings=False,
        )
        model = LlamaForCausalLM(config)
        model.load_state_dict({name: p[number].detach() for name, p in parameters.items()})
        return model.eval()


def logits(shape: LlamaShape, parameters: Parameters, input_ids: Tensor) -> Tensor:
    """Next-token logits: ``input_ids [S, B, T]`` -> ``[S, B, T, V]``."""
    models, rows, length = input_ids.shape
    offsets = torch.arange(models)[:, None, None] * shape.vocabulary
    table = parameters["model.embed_tokens.weight"].flatten(0, 1)
    h = F.embedding(input_ids + offsets, table).flatten(1, 2)  # [S, B*T, d]
    cos, sin = _rotary(shape, length)
    for i in range(shape.layers):
        p = f"model.layers.{i}"
        x = _norm(h, parameters[f"{p}.input_layernorm.weight"], shape.norm_eps)
        q, k, v = (
            _heads(_linear(x, parameters[f"{p}.self_attn.{n}_proj.weight"]), rows, shape)
            for n in ("q", "k", "v")
        )
        attended = F.scaled_dot_product_attention(
            _rotated(q, cos, sin), _rotated(k, cos, sin), v, is_causal=True, enable_gqa=True
        )  # [S*B, H, T, d/H]
        attended = attended.transpose(1, 2).reshape(models, rows * length, shape.width)
        h = h + _linear(attended, parameters[f"{p}.self_attn.o_proj.weight"])
        x = _norm(h, parameters[f"{p}.post_attention_layernorm.weight"], shape.norm_eps)
        gate = F.silu(_linear(x, parameters[f"{p}.mlp.gate_proj.weight"]))
        up = _linear(x, parameters[f"{p}.mlp.up_proj.weight"])
        h = h + _linear(gate * up, parameters[f"{p}.mlp.down_proj.weight"])
    h = _norm(h, parameters["model.norm.weight"], shape.norm_eps)
    return _linear(h, parameters["lm_head.weight"]).unflatten(1, (rows, length))


def sequence_losses(
    shape: LlamaShape, parameters: Parameters, input_ids: Tensor, targets: Tensor
) -> Tensor:
    """Negative log-likelihood summed over the targets of each sequence, in nats, ``[S, B]``.

    Args:
        shape: Of the models.
        parameters: Stacked.
        input_ids: ``[S, B, T]``, padded on the right with anything.
        targets: True where a token carries loss, ``[S, B, T]``; never at a first token.
    """
    log_probs = logits(shape, parameters, input_ids[:, :, :-1]).log_softmax(dim=-1)
    wanted = input_ids[:, :, 1:, None]
    picked = log_probs.gather(3, wanted).squeeze(3)
    return -(picked * targets[:, :, 1:]).sum(dim=2)


def _linear(x: Tensor, weight: Tensor) -> Tensor:
    """``[S, n, d_in]``, ``[S, d_out, d_in]`` -> ``[S, n, d_out]``."""
    return torch.bmm(x, weight.transpose(1, 2))


def _norm(h: Tensor, weight: Tensor, eps: float) -> Tensor:
    return h * (h.square().mean(dim=-1, keepdim=True) + eps).rsqrt() * weight[:, None]


def _heads(x: Tensor, rows: int, shape: LlamaShape) -> Tensor:
    """``[S, B*T, heads*d/H]`` -> ``[S*B, heads, T, d/H]``."""
    split = x.unflatten(2, (-1, shape.head_width)).unflatten(1, (rows, -1))
    return split.flatten(0, 1).transpose(1, 2)


def _rotary(shape: LlamaShape, length: int) -> tuple[Tensor, Tensor]:
    exponents = torch.arange(0, shape.head_width, 2).float() / shape.head_width
    angles = torch.outer(torch.arange(length).float(), shape.rope_theta**-exponents)
    angles = torch.cat([angles, angles], dim=1)
    return angles.cos(), angles.sin()


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin
