"""On a convex problem an owner's total is what refitting says, to first order."""

import numpy as np
import pytest

from evaluation.convex import RegressionSettings, RegressionStudy

SMALL = RegressionSettings(examples=300, queries=100, owners=5)


@pytest.fixture(scope="module")
def study():
    return RegressionStudy(SMALL)


def test_a_total_is_the_derivative_of_refitting_and_what_is_off_is_of_second_order(study):
    tenth, hundredth = study.agreements([0.1, 0.01])
    assert hundredth.correlation > 0.9999
    # What is left out is of second order, so a tenth of the part is off by a tenth as much; the
    # third order and float32 sums move that by a few percent.
    assert hundredth.error == pytest.approx(tenth.error / 10, rel=0.1)
    assert hundredth.error < 0.01


def test_whole_owners_are_ranked_as_refitting_without_them_ranks_them(study):
    (whole,) = study.agreements([1.0])
    assert whole.rank_correlation >= 0.9
    assert whole.correlation > 0.99
    assert (np.sign(whole.predicted) == np.sign(whole.refitted)).all()


def test_totals_are_those_of_a_dense_solve_number_by_number(study):
    """Gradients, curvature and the solve again, one example at a time."""
    theta, n = study._theta, SMALL.examples
    gradients, hessian = [], SMALL.ridge * np.eye(theta.size)
    for x, y in zip(study._x, study._y, strict=True):
        p = np.exp(theta @ x) / np.exp(theta @ x).sum()
        gradients.append(np.outer(p - np.eye(10)[y], x).ravel())
        hessian += np.kron(np.diag(p) - np.outer(p, p), np.outer(x, x)) / n
    x, y = study._x_query[0], study._y_query[0]
    p = np.exp(theta @ x) / np.exp(theta @ x).sum()
    query = np.linalg.solve(hessian, np.outer(p - np.eye(10)[y], x).ravel())
    expected = np.zeros(SMALL.owners)
    np.add.at(expected, study.owner_of, np.array(gradients) @ query)
    # Owners' sums are kept in float32: 2^-24 of each of 170 products.
    scale = np.abs(np.array(gradients) @ query).sum()
    np.testing.assert_allclose(study.totals()[0], expected, atol=2**-20 * scale)
