"""Any module with a loss for each example: layers shared, called twice, written to in place."""

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from influence.encoder import GradientEncoder
from influence.errors import InvalidInput, UnknownLayers
from influence.layers import coverage, select_layers
from influence.task import check_examples_apart, reached_layers
from influence.task_module import ModuleTask, class_margin


def _mlp_examples(width: int, count: int = 3):
    generator = torch.Generator().manual_seed(4)
    return [(torch.randn(width, generator=generator), i % 3) for i in range(count)]


def _module_task(model, **settings):
    return ModuleTask(
        model,
        lambda module, batch: cross_entropy(module(batch[0]), batch[1], reduction="none"),
        **settings,
    )


def _module_loss(twin, example):
    return cross_entropy(twin(example[0][None].double()), torch.tensor([example[1]]))


@pytest.mark.parametrize("activation", [nn.ReLU(inplace=True), nn.Tanh(), nn.SiLU(inplace=True)])
def test_a_sequential_with_activations_in_place(activation, against_autograd, lively):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), activation, nn.Linear(8, 7), activation, nn.Linear(7, 3))
    checked = against_autograd(_module_task(lively(model)), _mlp_examples(5), _module_loss)
    assert checked.coverage.share_of_linear == 1.0


def test_a_layer_called_several_times_adds_up(against_autograd, lively):
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(6, 6)
            self.out = nn.Linear(6, 3)

        def forward(self, x):
            for _ in range(3):
                x = torch.tanh(self.inner(x))
            return self.out(x)

    torch.manual_seed(0)
    against_autograd(_module_task(lively(Recurrent())), _mlp_examples(6), _module_loss)


def test_linear_layers_that_share_a_weight_are_one_layer(against_autograd, lively):
    torch.manual_seed(0)
    model = lively(
        nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 3))
    )
    model[2].weight = model[0].weight
    checked = against_autograd(_module_task(model), _mlp_examples(6), _module_loss)
    assert [layer.name for layer in checked.basis.layers] == ["0", "4"]
    assert checked.coverage.share_of_linear == 1.0


def test_an_input_written_to_in_place_is_another_input(against_autograd, lively):
    class Rewriting(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(5, 3)
            self.second = nn.Linear(5, 3)
            self.in_place = True

        def forward(self, x):
            x = x.clone()
            found = self.first(x)
            # Works while weights are frozen only; autograd gets the same in two tensors.
            x = x.mul_(2).add_(1) if self.in_place else 2 * x + 1
            return found + torch.tanh(self.second(x))

    def loss(twin, example):
        twin.in_place = False
        return _module_loss(twin, example)

    torch.manual_seed(0)
    checked = against_autograd(_module_task(lively(Rewriting())), _mlp_examples(5), loss)
    assert checked.basis.leaders == {"first": "first", "second": "second"}


def test_what_runs_without_gradients_is_not_said_to_be_covered(caplog):
    class HalfFrozen(nn.Module):
        def __init__(self):
            super().__init__()
            self.features = nn.Linear(5, 4)
            self.unused = nn.Linear(5, 4)
            self.aside = nn.Linear(5, 4)
            self.out = nn.Linear(4, 3)

        def forward(self, x):
            self.aside(x)  # leads nowhere
            with torch.no_grad():
                x = self.features(x)
            return self.out(x)

    model = HalfFrozen()
    task = _module_task(model)
    reached = reached_layers(task, select_layers(model), _mlp_examples(5)[0])
    assert [layer.name for layer in reached.layers] == ["out"]
    assert [layer.name for layer in reached.unreached] == ["features", "unused", "aside"]
    assert coverage(model, reached.layers).left_out == {"features": 24, "unused": 24, "aside": 24}
    with pytest.raises(UnknownLayers, match="depends on none of the 1"):
        reached_layers(task, select_layers(model, ["unused"]), _mlp_examples(5)[0])


def test_one_row_for_the_whole_batch_has_a_gradient_of_each_example(against_autograd, lively):
    class Learned(nn.Module):
        def __init__(self):
            super().__init__()
            self.queries = nn.Parameter(torch.randn(1, 4, 5))
            self.project = nn.Linear(5, 5)
            self.out = nn.Linear(5, 3)

        def forward(self, x):
            return self.out((self.project(self.queries) * x[:, None]).tanh().sum(dim=1))

    torch.manual_seed(0)
    against_autograd(_module_task(lively(Learned())), _mlp_examples(5), _module_loss)


def test_examples_that_influence_each_other_are_refused():
    class Mixing(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(5, 8)
            self.out = nn.Linear(8, 3)

        def forward(self, x):
            hidden = torch.tanh(self.inner(x))
            return self.out(hidden - hidden.mean(dim=0))

    model = Mixing()
    task = _module_task(model)
    reached = reached_layers(task, select_layers(model, ["inner"]), _mlp_examples(5)[0])
    with pytest.raises(InvalidInput, match="differ from those of each alone"):
        check_examples_apart(task, reached, _mlp_examples(5)[1:])


def test_sequence_first_inputs_are_refused():
    class SequenceFirst(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(5, 8)
            self.out = nn.Linear(8, 3)

        def forward(self, x):  # [B, 4, 5] -> [4, B, 5]
            return self.out(torch.tanh(self.inner(x.transpose(0, 1)))).sum(dim=0)

    model = SequenceFirst()
    task = _module_task(model)
    generator = torch.Generator().manual_seed(4)
    examples = [(torch.randn(4, 5, generator=generator), i) for i in range(3)]
    reached = reached_layers(task, select_layers(model), examples[0])
    with pytest.raises(InvalidInput, match="differ from those of each alone"):
        check_examples_apart(task, reached, examples[:2])
    with pytest.raises(InvalidInput, match="4 rows for 3 examples"):
        check_examples_apart(task, reached, examples)


def test_a_loss_averaged_over_the_batch_is_refused():
    model = nn.Linear(5, 3)
    task = ModuleTask(model, lambda module, batch: cross_entropy(module(batch[0]), batch[1]))
    with pytest.raises(InvalidInput, match=r"shape \(\) for 1 examples"):
        reached_layers(task, select_layers(model), _mlp_examples(5)[0])


def test_a_measurement_is_differentiated_in_place_of_the_loss(new_basis, autograd, lively):
    torch.manual_seed(0)
    model = lively(nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3)))
    task = _module_task(model, measurement=lambda m, batch: class_margin(m(batch[0]), batch[1]))
    examples = _mlp_examples(5)
    basis = new_basis(task, examples[0], ["0"])
    got = GradientEncoder(task, basis).encode(examples, measured=True)
    (layer,) = basis.layers

    def margin(twin):
        p = twin(examples[1][0][None].double()).softmax(dim=1)[0, examples[1][1]]
        return -(p.log() - (1 - p).log())

    gradient = autograd(model, margin)["0.weight"]
    want = (layer.p_out.double() @ gradient @ layer.p_in.double().T).flatten()
    coordinates = GradientEncoder(task, basis).coordinates(examples, measured=True)[0][1].double()
    assert (coordinates - want).norm() < 1e-5 * want.norm()
    assert float(got.losses[1]) == pytest.approx(float(margin(model.double()).detach()), rel=1e-5)
