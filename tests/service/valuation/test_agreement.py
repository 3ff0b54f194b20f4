"""Agreement of neighbours against all pairs, and on a document whose label was turned around."""

import numpy as np
import pytest

from service.valuation import agreement
from service.valuation.agreement import by_agreement, neighbour_agreement


@pytest.mark.parametrize(("count", "neighbours"), [(40, 5), (4, 10), (1, 3), (2, 1)])
def test_it_is_what_all_pairs_say_whatever_the_blocks(count, neighbours, monkeypatch):
    monkeypatch.setattr(agreement, "BLOCK", 7)
    units = np.random.default_rng(0).normal(size=(count, 6))
    units /= np.linalg.norm(units, axis=1)[:, None]
    found, worst = neighbour_agreement(count, lambda rows: units[list(rows)], neighbours=neighbours)
    for i in range(count):
        cosines = {j: float(units[i] @ units[j]) for j in range(count) if j != i}
        near = sorted(cosines, key=lambda j: -abs(cosines[j]))[:neighbours]
        expected = np.mean([cosines[j] for j in near]) if near else 0.0
        assert found[i] == pytest.approx(expected)
        lowest = min(near, key=lambda j: cosines[j], default=None)
        if lowest is None or cosines[lowest] >= 0:
            assert worst[i] == -1
        else:
            assert worst[i] == lowest


def test_who_speaks_against_all_its_like_is_found_and_who_is_merely_alone_is_not():
    draw = np.random.default_rng(1)
    units = draw.normal(size=(40, 50)) * 0.3
    units[:20, 0] += 5
    units[20:, 1] += 5
    units[7] = -units[7]  # its label turned around
    units[33] = draw.normal(size=50)  # like nothing else
    units /= np.linalg.norm(units, axis=1)[:, None]
    found, worst = neighbour_agreement(40, lambda rows: units[list(rows)], neighbours=10)
    assert found.argmin() == 7
    assert found[7] < -0.5
    assert worst[7] < 20
    assert np.delete(found, [7, 33]).min() > 0.5
    assert abs(found[33]) < 0.5


def test_every_document_of_an_index_has_its_place(engine):
    found = by_agreement(engine.reader)
    assert {one.document_id for one in found} == set(engine.reader.document_ids())
    assert [one.agreement for one in found] == sorted(one.agreement for one in found)
    assert all(one.against is not None for one in found if one.agreement < 0)
