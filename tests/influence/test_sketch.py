"""The sketch is unbiased, with exactly the variance that its docstring says."""

import math

import pytest
import torch
from torch.testing import assert_close

from influence.sketch import CountSketch

CPU = torch.device("cpu")


def _pair(coordinates: int, cosine: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Two float64 vectors whose entries differ widely in size, at a given angle."""
    generator = torch.Generator().manual_seed(0)
    scale = 2.0 ** torch.linspace(0, -4, coordinates, dtype=torch.float64)
    x = torch.randn(coordinates, generator=generator, dtype=torch.float64) * scale
    other = torch.randn(coordinates, generator=generator, dtype=torch.float64) * scale
    other -= x * (x @ other) / (x @ x)
    y = cosine * x / x.norm() + math.sqrt(1 - cosine**2) * other / other.norm()
    return x, 3 * y


@pytest.mark.parametrize("cosine", [0.0, 0.7])
@pytest.mark.parametrize(("coordinates", "dims"), [(37, 8), (16, 8), (64, 4)])
def test_inner_products_are_unbiased_with_the_variance_of_the_formula(coordinates, dims, cosine):
    x, y = _pair(coordinates, cosine)
    seeds = 1500
    found = torch.empty(seeds, dtype=torch.float64)
    for seed in range(seeds):
        sketch = CountSketch(coordinates, dims, seed=seed, device=CPU)
        sx, sy = sketch.forward(torch.stack([x, y]))
        found[seed] = sx @ sy
    m = math.ceil(coordinates / dims)
    variance = (
        (m - 1)
        / (m * dims - 1)
        * float((x @ x) * (y @ y) + (x @ y) ** 2 - 2 * (x * y).square().sum())
    )
    centred = found - x @ y
    # Five standard errors: of a mean, √(σ²/n); of a variance, √((E d⁴ - σ⁴)/n).
    assert abs(float(centred.mean())) < 5 * math.sqrt(variance / seeds) + 1e-12
    error = math.sqrt(float(centred.pow(4).mean() - centred.square().mean() ** 2) / seeds)
    assert abs(float(centred.square().mean()) - variance) < 5 * error + 1e-12


def test_noise_is_the_deviation_of_the_cosine_of_vectors_without_common_coordinates():
    sketch = CountSketch(4000, 100, seed=0, device=CPU)
    m = 40
    assert_close(sketch.noise, math.sqrt((m - 1) / (m * 100 - 1)))
    assert_close(sketch.noise, 1 / math.sqrt(100), rtol=0.02, atol=0)


def test_each_coordinate_goes_into_one_bin_with_a_sign():
    """And no bin gets more than ⌈K/D⌉ of them."""
    sketch = CountSketch(37, 8, seed=5, device=CPU)
    matrix = sketch.forward(torch.eye(37))  # [K, D]: where each coordinate goes
    assert torch.equal(matrix.abs().sum(dim=1), torch.ones(37))
    assert ((matrix == 0) | (matrix.abs() == 1)).all()
    assert matrix.abs().sum(dim=0).max() <= 5


def test_the_transpose_is_the_adjoint():
    generator = torch.Generator().manual_seed(1)
    for coordinates, dims in [(37, 8), (16, 8), (5, 8), (64, 4)]:
        sketch = CountSketch(coordinates, dims, seed=2, device=CPU)
        x = torch.randn(3, coordinates, generator=generator, dtype=torch.float64)
        y = torch.randn(4, sketch.dims, generator=generator, dtype=torch.float64)
        assert_close(sketch.forward(x) @ y.T, x @ sketch.transpose(y).T, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("coordinates", [1, 7, 8])
def test_nothing_is_sketched_where_everything_fits(coordinates):
    sketch = CountSketch(coordinates, 8, seed=0, device=CPU)
    x = torch.randn(2, coordinates)
    assert sketch.is_identity
    assert sketch.dims == coordinates
    assert sketch.noise == 0.0
    assert torch.equal(sketch.forward(x), x)
    assert torch.equal(sketch.transpose(x), x)


def test_one_seed_gives_the_same_bits_every_time():
    x = torch.randn(5, 1000, generator=torch.Generator().manual_seed(0))
    first = CountSketch(1000, 64, seed=3, device=CPU).forward(x)
    torch.manual_seed(99)  # the global generator is not asked
    again = CountSketch(1000, 64, seed=3, device=CPU)
    for _ in range(20):
        assert torch.equal(again.forward(x), first)
    for row in range(5):  # nor does the batch matter
        assert torch.equal(again.forward(x[row : row + 1])[0], first[row])
    assert not torch.equal(CountSketch(1000, 64, seed=4, device=CPU).forward(x), first)
