"""Odd documents: robust z-scores of self-influence, number by number."""

import math
import statistics

import numpy as np
import pytest

from service.valuation.outliers import by_oddness, robust_z


def test_the_z_of_a_document_is_that_of_its_logarithm_per_token(engine):
    reader = engine.reader
    logarithms = {}
    for document_id in reader.document_ids():
        rows = reader.rows_of(document_id)
        energy = sum(float(reader.norms[row]) ** 2 for row in rows)
        logarithms[document_id] = math.log(
            energy / sum(reader.passage(row).target_tokens for row in rows)
        )
    middle = statistics.median(logarithms.values())
    deviation = 1.4826 * statistics.median(abs(x - middle) for x in logarithms.values())
    expected = {d: (x - middle) / deviation for d, x in logarithms.items()}
    found = by_oddness(reader)
    assert {one.document_id: one.z for one in found} == pytest.approx(expected)
    assert [one.z for one in found] == sorted(expected.values(), reverse=True)


def test_outliers_do_not_hide_each_other():
    values = np.append(np.linspace(-1, 1, 61), [30.0] * 20)
    assert (robust_z(values)[61:] > 15).all()
    assert abs(robust_z(values)[:61]).max() < 5


def test_equal_documents_are_not_odd():
    assert (robust_z(np.full(5, 3.0)) == 0).all()
    assert len(robust_z(np.array([]))) == 0
