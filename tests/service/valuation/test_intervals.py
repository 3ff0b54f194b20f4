"""Resampled totals spread as theory says."""

import numpy as np
import pytest

from service.valuation.intervals import bootstrap_totals, interval, over_models

DRAW = np.random.default_rng(0)


def test_queries_are_resampled_with_replacement():
    groups = DRAW.normal(1.0, 2.0, size=(200, 3))
    resampled = bootstrap_totals(groups)
    # Of 1,000 draws a standard deviation is known to 1/√2000 = 2.2 %; 10 % is more than 4 of these.
    expected = np.sqrt(200) * groups.std(axis=0)
    np.testing.assert_allclose(resampled.std(axis=0), expected, rtol=0.1)
    low, high = interval(resampled)
    assert (low < groups.sum(axis=0)).all()
    assert (groups.sum(axis=0) < high).all()


@pytest.mark.parametrize(("models", "queries"), [(30, 1), (1, 40), (30, 40)])
def test_models_are_resampled_beside_queries_and_their_variances_add_up(models, queries):
    of_model = DRAW.normal(size=(models, 1, 2))
    of_query = DRAW.normal(size=(1, queries, 2))
    resampled = over_models(3.0 + of_model + of_query)
    variance = queries**2 * of_model.var(axis=0)[0] / models + queries * of_query.var(axis=1)[0]
    # Sums over queries move with the model drawn; the two draws are independent, and what they do
    # together adds nothing here. 2.2 % of a deviation, as above.
    np.testing.assert_allclose(resampled.std(axis=0), np.sqrt(variance), rtol=0.1)
