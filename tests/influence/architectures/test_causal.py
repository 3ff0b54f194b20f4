"""Every causal language model: captured gradients are autograd's, and nearly all is covered."""

import logging

import pytest
import torch

from influence.encoder import GradientEncoder
from influence.errors import UnknownLayers
from influence.layers import select_layers
from influence.projection import LayerProjection, ProjectionReceiver
from influence.task import check_examples_apart, reached_layers, run_backward


def test_gradients_are_those_of_autograd_and_coverage_is_whole(
    causal, as_task, new_sequences, against_autograd, language_loss, caplog
):
    with caplog.at_level(logging.WARNING):
        task = as_task(causal)
    assert task.head is not None, caplog.text  # the vocabulary is met in chunks
    checked = against_autograd(task, new_sequences(), language_loss)
    assert checked.coverage.share_of_linear >= 0.99
    assert len(checked.basis.layers) == len(select_layers(causal))  # none was selected in vain


PREFIX = "model.layers.0"


@pytest.mark.parametrize("name", ["mixtral", "qwen2-moe", "gpt-oss"])
def test_each_expert_is_a_layer_and_so_is_the_router(name, new_causal):
    layers = {layer.name: layer for layer in select_layers(new_causal(name))}
    inner = 12 if name == "qwen2-moe" else 24
    up = layers[f"{PREFIX}.mlp.experts.gate_up_proj.3"]
    down = layers[f"{PREFIX}.mlp.experts.down_proj.0"]
    router = layers[f"{PREFIX}.mlp.{'router' if name == 'gpt-oss' else 'gate'}"]
    assert (up.d_in, up.d_out) == (16, 2 * inner)
    assert (down.d_in, down.d_out) == (inner, 16)
    assert (router.d_in, router.d_out) == (16, 4)


def test_an_expert_that_no_token_reached_has_no_gradient(
    new_causal, as_task, new_sequences, new_basis
):

    model = new_causal("mixtral", num_local_experts=8, num_experts_per_tok=1)
    task = as_task(model)
    (sequence,) = new_sequences([4])
    basis = new_basis(task, sequence)
    got, _ = GradientEncoder(task, basis).coordinates([sequence])
    blocks = got[0].split([layer.coordinates for layer in basis.layers])
    experts = {
        layer.name: block.abs().sum().item()
        for layer, block in zip(basis.layers, blocks, strict=True)
        if f"{PREFIX}.mlp.experts.down_proj" in layer.name
    }
    assert len(experts) == 8
    assert 1 <= sum(value > 0 for value in experts.values()) <= 4


def test_positions_can_be_kept_for_experts(new_causal, as_task, new_sequences, new_basis):
    """For explanations of tokens: every row at its own place, the sums the same."""

    class InPlace(ProjectionReceiver):
        keeps_positions = True

        def on_gradient(self, layer, seen, g):
            shapes.add(tuple(g.shape[:2]))
            super().on_gradient(layer, seen, g)

    task = as_task(new_causal("qwen3-moe"))
    sequences = new_sequences()
    basis = new_basis(task, sequences[0])
    layers = [layer.layer for layer in basis.layers]
    batch = task.batch(sequences)
    shapes: set[tuple[int, int]] = set()
    found = []
    for kind in (ProjectionReceiver, InPlace):
        receiver = kind(basis.projections(torch.float32), len(sequences), torch.device("cpu"))
        run_backward(task, batch, layers, basis.leaders, receiver)
        found.append(receiver.coordinates)
    assert shapes == {tuple(batch.input_ids.shape)}
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["llama", "llama-tied", "gpt2", "gemma2", "opt"])
def test_head_embeddings_and_norms_can_be_turned_on(
    name, new_causal, as_task, new_sequences, against_autograd, language_loss
):
    model = new_causal(name)
    patterns = {
        # A tied weight has two uses, and each by itself is not autograd's gradient of both.
        "llama": ["*", "head", "embeddings", "norms"],
        "llama-tied": ["norms"],
        "gpt2": ["norms", "transformer.wpe"],
        "gemma2": ["norms"],
        "opt": ["*", "norms"],
    }[name]
    checked = against_autograd(as_task(model), new_sequences(), language_loss, patterns)
    if name == "llama":
        assert checked.coverage.left_out == {}
        assert checked.coverage.share_of_all == checked.coverage.share_of_linear == 1.0


def test_each_use_of_a_tied_weight_is_its_part_of_the_gradient(
    new_causal, as_task, new_sequences, against_autograd, language_loss, new_basis
):
    """Head and embedding of a tied model sum to autograd's gradient of the one weight."""

    model = new_causal("llama-tied")
    task = as_task(model)
    (sequence,) = new_sequences([9])
    layers = select_layers(model, ["head", "embeddings"])
    whole = [
        LayerProjection(layer.name, torch.eye(layer.d_in), torch.eye(layer.d_out))
        for layer in layers
    ]
    receiver = ProjectionReceiver(whole, 1, torch.device("cpu"))
    leaders = {layer.name: layer.name for layer in layers}
    run_backward(task, task.batch([sequence]), layers, leaders, receiver)
    embedding, head = receiver.coordinates[0].split(60 * 16)
    model.requires_grad_(True)
    language_loss(model, sequence).backward()
    torch.testing.assert_close(
        embedding.view(16, 60).T + head.view(60, 16),
        model.lm_head.weight.grad,
        rtol=1e-4,
        atol=1e-4,
    )


def test_a_head_by_itself(new_causal, as_task, new_sequences, against_autograd, language_loss):
    checked = against_autograd(
        as_task(new_causal("gemma2")), new_sequences(), language_loss, ["model.norm"]
    )
    assert [layer.name for layer in checked.basis.layers] == ["model.norm"]
    checked = against_autograd(
        as_task(new_causal("phi")), new_sequences(), language_loss, ["lm_head"]
    )
    assert [layer.name for layer in checked.basis.layers] == ["lm_head"]


def test_examples_do_not_mix(causal, as_task, new_sequences):
    task = as_task(causal)
    sequences = new_sequences([5, 8])
    check_examples_apart(task, reached_layers(task, select_layers(causal), sequences[0]), sequences)


def test_patterns_exclude_with_an_exclamation_mark(new_causal):
    model = new_causal("qwen2-moe")
    names = [layer.name for layer in select_layers(model, ["*", "!*.experts.*", "!*o_proj"])]
    assert any("q_proj" in name for name in names)
    assert not any("experts" in name or "o_proj" in name for name in names)
    assert names == [layer.name for layer in select_layers(model, ["!*.experts.*", "!*o_proj"])]
    with pytest.raises(UnknownLayers, match=r"'\*\.exprts\.\*' matches none.*nearest"):
        select_layers(model, ["*", "!*.exprts.*"])
    with pytest.raises(UnknownLayers, match="leave no layer"):
        select_layers(model, ["*.mlp.gate", "!*gate"])
