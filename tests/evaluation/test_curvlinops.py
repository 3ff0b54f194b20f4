"""Our reference solvers against another library's operators (curvlinops), in float64.

The network has bias-free layers, so that its parameters are the weights that are attributed.
Skipped where the library is not installed; docs/methods.md says why it is not in the extra dev, and
how to install it.
"""

import math

import numpy as np
import pytest
import torch
from torch import nn

from evaluation.catalogue import FULL_EKFAC, FULL_RANK, projected
from evaluation.digits import Classifier
from evaluation.methods import Dampings, FullGradient, Projected, by_conjugate_gradients, exact
from evaluation.reference import conjugate_gradients
from evaluation.subject import Subject

# A package that curvlinops brings compiles a function as torch no longer wants it.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script`:DeprecationWarning")
curvlinops = pytest.importorskip("curvlinops")

DAMPING = 0.1


@pytest.fixture(scope="module")
def subject():
    """30 examples of 3 classes, 4 other queries."""
    generator = torch.Generator().manual_seed(0)
    network = nn.Sequential(nn.Linear(6, 5, bias=False), nn.Tanh(), nn.Linear(5, 3, bias=False))
    for weight in network.parameters():
        weight.data = torch.randn(weight.shape, generator=generator) / 2
    images = torch.randn(34, 6, generator=generator)
    labels = torch.randint(0, 3, (34,), generator=generator)
    pairs = list(zip(images, labels.tolist(), strict=True))
    return Subject(Classifier(network), pairs[:30], pairs[30:])


@pytest.fixture(scope="module")
def theirs(subject):
    """The network, its examples, and its gradients layer by layer, in float64."""
    network = nn.Sequential(nn.Linear(6, 5, bias=False), nn.Tanh(), nn.Linear(5, 3, bias=False))
    network.load_state_dict(subject.task.model.state_dict())
    network.double()
    batch = subject.task.batch(subject.examples)
    train = subject.gradients(subject.examples).double()
    queries = subject.gradients(subject.queries, measured=True).double()
    return network, [(batch.images.double(), batch.labels)], train, queries


def scores_of(method, subject, damping):
    fitted = method.fit(subject)
    return fitted.scores(fitted.capture(subject.queries), Dampings(damping, math.inf)).influence


def test_full_size_ekfac_is_theirs_layer_by_layer(subject, theirs):
    network, data, train, queries = theirs
    expected = torch.zeros(len(queries), len(train), dtype=torch.float64)
    start = 0
    for weight in network.parameters():
        part = slice(start, start + weight.numel())
        start = part.stop
        ekfac = curvlinops.EKFACLinearOperator(
            network, nn.CrossEntropyLoss(), [weight], data, fisher_type="empirical"
        )
        # Ours is damped by a share of the layer's mean eigenvalue.
        mean = float(train[:, part].square().sum(dim=1).mean()) / weight.numel()
        inverse = curvlinops.KFACInverseLinearOperator(
            ekfac, damping=DAMPING * mean, use_exact_damping=True
        )
        expected += (inverse @ queries[:, part].T).T @ train[:, part].T
    got = scores_of(Projected(FULL_EKFAC, projected(rank=FULL_RANK)), subject, DAMPING)
    # Scores of an index are of fp16 vectors: 2⁻¹¹ of a number, a few of them in a product.
    np.testing.assert_allclose(got, expected, rtol=0, atol=2e-3 * float(expected.abs().max()))


@pytest.mark.parametrize("solver", [exact, by_conjugate_gradients])
def test_solves_with_the_empirical_fisher_are_theirs(solver, subject, theirs):
    network, data, train, queries = theirs
    fisher = curvlinops.EFLinearOperator(
        network, nn.CrossEntropyLoss(), list(network.parameters()), data
    )
    dense = fisher @ torch.eye(train.shape[1], dtype=torch.float64)
    values = torch.linalg.eigvalsh(dense)
    damping = DAMPING * float(values[values > values[-1] * 1e-10].mean())
    expected = torch.linalg.solve(dense + damping * torch.eye(len(dense)), queries.T).T @ train.T
    got = scores_of(FullGradient("", solver), subject, DAMPING)
    # Gradients are float32: 2⁻²³ of a number, and the solve stretches it by its condition.
    condition = float(values[-1]) / damping
    tolerance = 2**-22 * condition + 1e-5  # 20 products leave this much of 30 directions
    np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance * float(expected.abs().max()))


def test_conjugate_gradients_invert_their_gauss_newton_matrix(theirs):
    network, data, _, queries = theirs
    matrix = curvlinops.GGNLinearOperator(
        network, nn.CrossEntropyLoss(), list(network.parameters()), data
    )
    got = conjugate_gradients(
        lambda v: (matrix @ v.T).T, queries, damping=0.01, iterations=2 * queries.shape[1]
    )
    back = (matrix @ got.T).T + 0.01 * got
    torch.testing.assert_close(back, queries, rtol=1e-8, atol=1e-10)
