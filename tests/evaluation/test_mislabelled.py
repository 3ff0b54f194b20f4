"""On digits some of whose labels are wrong."""

from evaluation.digits import DigitsSettings
from evaluation.mislabelled import find, markdown

SMALL = DigitsSettings(examples=300, queries=10, hidden=(32,), epochs=30, batch=20)


def test_neighbours_tell_wrong_labels_from_hard_examples(tmp_path):
    *_, most, neighbours = found = find(SMALL, cache=tmp_path)
    assert neighbours.auc > max(0.95, most.auc)
    assert neighbours.precision > 0.5  # about 13 % of all are wrong
    assert markdown(found).count("\n") == 4
