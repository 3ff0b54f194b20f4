import pytest
import torch
from torch import nn
from torch.testing import assert_close

from influence.capture import capture
from influence.layers import LinearLayer
from influence.projection import LayerProjection, ProjectionReceiver, project_gradient

B, T, D_IN, D_OUT, R_IN, R_OUT = 3, 5, 7, 6, 4, 2


def _normal(*shape: int, seed: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def test_projected_gradient_is_the_projection_of_the_autograd_gradient():
    weight = _normal(D_OUT, D_IN, seed=0).requires_grad_()
    x = _normal(B, T, D_IN, seed=1)
    p_in, p_out = _normal(R_IN, D_IN, seed=2), _normal(R_OUT, D_OUT, seed=3)
    y = (x @ weight.T).detach()
    got = project_gradient(x, 2 * y, p_in, p_out)  # the loss is Σ y²
    for b in range(B):  # one backward pass per example
        (dw,) = torch.autograd.grad((x[b] @ weight.T).square().sum(), weight)
        assert_close(got[b], p_out @ dw @ p_in.T, rtol=1e-12, atol=1e-12)


class Twice(nn.Module):
    """Uses one layer two times."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(D_IN, D_IN, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(torch.tanh(self.layer(x)))


def test_a_layer_called_twice_gets_the_sum_of_both_calls():
    torch.manual_seed(0)
    model = Twice()
    x = _normal(B, T, D_IN, seed=1, dtype=torch.float32)
    p_in = _normal(R_IN, D_IN, seed=2, dtype=torch.float32)
    p_out = _normal(R_OUT, D_IN, seed=3, dtype=torch.float32)
    receiver = ProjectionReceiver([LayerProjection("layer", p_in, p_out)], B, torch.device("cpu"))
    with capture(model, [LinearLayer("layer", D_IN, D_IN)], receiver):
        model(x).square().sum().backward()
    for b in range(B):
        (dw,) = torch.autograd.grad(model(x[b]).square().sum(), model.layer.weight)
        want = (p_out @ dw @ p_in.T).flatten()
        assert (receiver.coordinates[b] - want).norm() < 1e-5 * want.norm()


def test_layers_lie_one_after_the_other_each_output_by_input():
    projections = [
        LayerProjection("a", torch.eye(2, 3), torch.eye(4, 5)),
        LayerProjection("b", torch.eye(3), torch.eye(1, 6)),
    ]
    assert [p.coordinates for p in projections] == [8, 3]
    receiver = ProjectionReceiver(projections, 1, torch.device("cpu"))
    x = _normal(1, 2, 3, seed=4, dtype=torch.float32)
    g = _normal(1, 2, 6, seed=5, dtype=torch.float32)
    receiver.on_gradient("b", receiver.on_input("b", x), g)
    assert receiver.coordinates[0, :8].count_nonzero() == 0
    want = project_gradient(x, g, torch.eye(3), torch.eye(1, 6))  # [1, r_out, r_in]
    assert_close(receiver.coordinates[0, 8:], want.flatten())


@pytest.mark.parametrize("padding", [1, 4])
def test_padding_without_gradient_adds_nothing(padding):
    x, g = _normal(B, T, D_IN, seed=1), _normal(B, T, D_OUT, seed=2)
    p_in, p_out = _normal(R_IN, D_IN, seed=3), _normal(R_OUT, D_OUT, seed=4)
    padded_x = torch.cat([x, _normal(B, padding, D_IN, seed=5)], dim=1)
    padded_g = torch.cat([g, torch.zeros(B, padding, D_OUT, dtype=torch.float64)], dim=1)
    assert_close(
        project_gradient(padded_x, padded_g, p_in, p_out), project_gradient(x, g, p_in, p_out)
    )
