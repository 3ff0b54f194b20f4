"""Capture leaves nothing behind and asks autograd for nothing it does not need."""

import gc
import weakref
from collections import Counter

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from influence.capture import capture, frozen, shared_inputs
from influence.layers import LinearLayer, select_layers


class Recorder:
    """Keeps everything it is told."""

    def __init__(self) -> None:
        self.inputs: list[tuple[str, torch.Tensor]] = []
        self.gradients: list[tuple[str, object, torch.Tensor]] = []

    def on_input(self, layer, x):
        self.inputs.append((layer, x.clone()))
        return len(self.inputs) - 1

    def on_gradient(self, layer, seen, g):
        self.gradients.append((layer, seen, g.clone()))


class Branches(nn.Module):
    """Three readers of one input and one of another, with dropout and a frozen layer in between."""

    def __init__(self) -> None:
        super().__init__()
        self.query = nn.Linear(4, 4)
        self.key = nn.Linear(4, 4)
        self.value = nn.Linear(4, 3, bias=False)
        self.dropout = nn.Dropout(0.5)
        self.out = nn.Linear(3, 2)

    def forward(self, x):
        mixed = torch.tanh(self.query(x)) * self.key(x)
        return self.out(self.dropout(self.value(x) + mixed[..., :3]))


@pytest.fixture
def branches():
    torch.manual_seed(0)
    return Branches()


@pytest.fixture
def x():
    return torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(1))


LAYERS = [
    LinearLayer("query", 4, 4),
    LinearLayer("key", 4, 4),
    LinearLayer("value", 4, 3),
    LinearLayer("out", 3, 2),
]


def _state(model):
    """All that a caller could notice about a model."""
    return (
        [(name, module.training) for name, module in model.named_modules()],
        [(name, p.requires_grad, p.grad) for name, p in model.named_parameters()],
        [
            (name, key, list(value))
            for name, module in model.named_modules()
            for key, value in vars(module).items()
            if "hooks" in key and value is not None
        ],
        {name: tensor.clone() for name, tensor in model.state_dict().items()},
    )


def _assert_same_state(before, after):
    assert before[:1] == after[:1]
    assert [(n, r) for n, r, _ in before[1]] == [(n, r) for n, r, _ in after[1]]
    assert all(a[2] is b[2] for a, b in zip(before[1], after[1], strict=True))
    assert before[2] == after[2]
    assert before[3].keys() == after[3].keys()
    assert all(torch.equal(tensor, after[3][name]) for name, tensor in before[3].items())


def _make_odd(model):
    """A state that no blanket `train()` or `requires_grad_()` would restore."""
    model.train()
    model.dropout.eval()
    model.key.weight.requires_grad_(False)
    model.out.bias.requires_grad_(False)
    model.query.weight.grad = torch.ones_like(model.query.weight)
    model.out.register_forward_hook(lambda module, args, output: None)


def test_gradients_are_those_of_autograd(branches, x):
    branches.eval()
    recorder = Recorder()
    with capture(branches, LAYERS, recorder):
        branches(x).square().sum().backward()
    inputs = dict(recorder.inputs)
    for name, _, g in recorder.gradients:
        layer = branches.get_submodule(name)
        (want,) = torch.autograd.grad(branches(x).square().sum(), layer.weight)
        assert_close(torch.einsum("bto,bti->oi", g, inputs[name]), want)
    assert Counter(name for name, *_ in recorder.gradients) == Counter(
        layer.name for layer in LAYERS
    )


def test_an_input_that_layers_share_is_handled_once(branches, x):
    leaders = shared_inputs(branches, LAYERS, lambda: branches(x))
    assert leaders == {"query": "query", "key": "query", "value": "query", "out": "out"}
    recorder = Recorder()
    with capture(branches, LAYERS, recorder, leaders=leaders):
        branches(x).square().sum().backward()
    assert [name for name, _ in recorder.inputs] == ["query", "out"]
    assert {name: seen for name, seen, _ in recorder.gradients} == {
        "query": 0,
        "key": 0,
        "value": 0,
        "out": 1,
    }


def test_layers_said_to_share_an_input_but_given_another_do_not_share_it(branches, x):
    class Apart(Branches):
        def forward(self, x):
            return self.query(x)[..., :2] + self.key(2 * x)[..., :2]

    model = Apart()
    recorder = Recorder()
    with capture(model, LAYERS[:2], recorder, leaders={"query": "query", "key": "query"}):
        model(x).sum().backward()
    assert_close(recorder.inputs[1][1], 2 * recorder.inputs[0][1])
    assert {name: seen for name, seen, _ in recorder.gradients} == {"query": 0, "key": 1}


def test_the_model_comes_back_exactly_as_it_was(branches, x):
    _make_odd(branches)
    before = _state(branches)
    with capture(branches, LAYERS, Recorder()):
        assert not any(module.training for module in branches.modules())
        assert not any(p.requires_grad for p in branches.parameters())
        branches(x).sum().backward()
    _assert_same_state(before, _state(branches))


@pytest.mark.parametrize("where", ["on_input", "on_gradient", "forward", "body"])
def test_the_model_comes_back_exactly_as_it_was_after_an_exception(branches, x, where):
    class Failing(Recorder):
        def on_input(self, layer, x):
            if where == "on_input" and layer == "out":
                raise KeyError(where)

        def on_gradient(self, layer, seen, g):
            if where == "on_gradient" and layer == "value":
                raise KeyError(where)

    _make_odd(branches)
    before = _state(branches)

    def run():
        with capture(branches, LAYERS, Failing()):
            output = branches(x[..., :3] if where == "forward" else x)  # a width that does not fit
            if where == "body":
                raise KeyError(where)
            output.sum().backward()

    with pytest.raises((KeyError, RuntimeError)):
        run()
    _assert_same_state(before, _state(branches))


def test_a_layer_that_is_not_there_leaves_no_hook_on_the_others(branches):
    before = _state(branches)
    layers = [*LAYERS, LinearLayer("missing", 1, 1)]
    with pytest.raises(AttributeError), capture(branches, layers, Recorder()):
        pass
    _assert_same_state(before, _state(branches))


def test_capture_works_inside_no_grad(branches, x):
    recorder = Recorder()
    with torch.no_grad(), capture(branches, LAYERS, recorder):
        branches(x).sum().backward()
    assert len(recorder.gradients) == 4


def test_frozen_restores_nested_use(branches):
    _make_odd(branches)
    before = _state(branches)
    with frozen(branches), frozen(branches):
        pass
    _assert_same_state(before, _state(branches))


def _graph(root):
    """Every node of an autograd graph."""
    seen, todo = set(), [root]
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        todo += [following for following, _ in node.next_functions]
    return seen


def test_no_parameter_is_in_the_graph_and_none_gets_a_gradient(loaded, token_sequence):
    """Not even the input embedding: its gradient would be as large as the vocabulary."""
    model = loaded.model
    model.requires_grad_(True)
    layers = select_layers(model)
    ids = torch.tensor([token_sequence(9).input_ids])
    with capture(model, layers, Recorder()):
        output = model.base_model(input_ids=ids).last_hidden_state
        nodes = _graph(output.grad_fn)
        output.square().sum().backward()
    parameters = {id(p) for p in model.parameters()}
    leaves = [node.variable for node in nodes if hasattr(node, "variable")]
    assert leaves  # the outputs of the first layers, where differentiation begins
    assert not any(id(leaf) in parameters for leaf in leaves)
    assert not any("Embedding" in node.name() for node in nodes)
    assert all(p.grad is None for p in model.parameters())


def test_nothing_before_the_first_attributed_layer_is_differentiated(loaded, token_sequence):
    model = loaded.model
    every = select_layers(model)
    ids = torch.tensor([token_sequence(9).input_ids])
    sizes = []
    for layers in (every, every[-1:]):
        with capture(model, layers, Recorder()):
            sizes.append(len(_graph(model.base_model(input_ids=ids).last_hidden_state.grad_fn)))
    # What is left behind the last matrix: a residual sum and a normalisation.
    assert sizes[1] < sizes[0] / 5


def test_nothing_captured_outlives_the_pass(loaded, token_sequence):
    """Activations kept with their graph by a reference cycle once took 24 GB."""
    model = loaded.model
    alive: list[weakref.ref] = []
    layers = select_layers(model)

    class Dropping(Recorder):
        def on_input(self, layer, x):
            alive.append(weakref.ref(x))

        def on_gradient(self, layer, seen, g):
            alive.append(weakref.ref(g))

    def remember(module, args, output):
        alive.append(weakref.ref(output))

    handles = [model.get_submodule(layer.name).register_forward_hook(remember) for layer in layers]
    ids = torch.tensor([token_sequence(9).input_ids])
    gc.collect()
    gc.disable()  # counting references alone must suffice
    try:
        with capture(model, layers, Dropping()):
            model.base_model(input_ids=ids).last_hidden_state.sum().backward()
        assert len(alive) == 3 * len(layers)
        assert [reference for reference in alive if reference() is not None] == []
    finally:
        gc.enable()
        for handle in handles:
            handle.remove()
