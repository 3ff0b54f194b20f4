"""What was measured, in the manifest of a version of its own."""

import json
from datetime import date

import pytest

from influence.attachment import attach_quality
from influence.errors import IndexCorrupt, InvalidInput
from influence.manifest import Quality, read_manifest
from influence.removal import Selection, remove_documents
from influence.store import IndexReader


def _quality(measure="recall@10", value=0.9, day=date(2026, 3, 1)) -> Quality:
    return Quality(
        measure=measure,
        value=value,
        low=value - 0.1,
        high=value + 0.05,
        protocol="12 queries",
        date=day,
    )


def test_what_was_measured_is_in_a_new_version_and_the_old_one_is_as_it_was(hand_made):
    before = {path: path.read_bytes() for path in hand_made.directory.rglob("*") if path.is_file()}
    version = attach_quality(hand_made.index_dir, hand_made.version, [_quality()])
    reader = IndexReader.open(hand_made.index_dir)
    reader.verify()
    assert reader.version == version != hand_made.version
    assert reader.manifest.quality == (_quality(),)
    assert reader.manifest.history[-1].kind == "measured"
    unchanged = {"plan_sha256", "history", "quality"}
    assert reader.manifest.model_dump(exclude=unchanged) == hand_made.manifest.model_dump(
        exclude=unchanged
    )
    assert {path: path.read_bytes() for path in before} == before


def test_a_measure_has_one_value_and_others_stay(hand_made):
    version = attach_quality(
        hand_made.index_dir, hand_made.version, [_quality(), _quality("tail_patch", 0.2)]
    )
    version = attach_quality(hand_made.index_dir, version, [_quality(value=0.5)])
    found = IndexReader.open(hand_made.index_dir).manifest.quality
    assert found == (_quality(value=0.5), _quality("tail_patch", 0.2))
    assert attach_quality(hand_made.index_dir, version, [_quality(value=0.5)]) == version


def test_the_same_measurement_gives_the_same_bytes(write_index, tmp_path):
    versions = [
        attach_quality(made.index_dir, made.version, [_quality()])
        for made in (write_index(tmp_path / "a"), write_index(tmp_path / "b"))
    ]
    assert versions[0] == versions[1]  # named after the sha256 of the manifest


def test_what_a_search_derived_is_not_derived_again(hand_made):
    folder = hand_made.directory / "search" / "sq8"
    folder.mkdir(parents=True)
    (folder / "codes.npy").write_bytes(b"codes")
    (folder / "record.json").write_bytes(b"{}")
    attach_quality(hand_made.index_dir, hand_made.version, [_quality()])
    derived = IndexReader.open(hand_made.index_dir).directory / "search" / "sq8"
    assert (derived / "codes.npy").read_bytes() == b"codes"
    assert (derived / "record.json").read_bytes() == b"{}"


def test_a_version_that_is_no_longer_current_is_not_given_the_quality_of_another(hand_made):
    removed = remove_documents(hand_made.index_dir, Selection(documents=["doc-1"]))
    with pytest.raises(InvalidInput, match=rf"{hand_made.version} was measured, and "):
        attach_quality(hand_made.index_dir, hand_made.version, [_quality()])
    assert IndexReader.open(hand_made.index_dir).version == removed.version


@pytest.mark.parametrize("wrong", [{"low": 0.95}, {"high": 0.8}, {"value": float("nan")}])
def test_a_value_outside_its_interval_is_refused(wrong):
    with pytest.raises(ValueError):
        Quality(**{**_quality().model_dump(), **wrong})


def test_manifests_without_the_field_say_not_measured(hand_made):
    path = hand_made.directory / "manifest.json"
    raw = json.loads(path.read_bytes())
    del raw["quality"]
    path.write_text(json.dumps({**raw, "measured": {}}))
    assert read_manifest(path).quality == ()
    path.write_text(json.dumps({**raw, "measured": {"lds": 0.5}}))
    with pytest.raises(IndexCorrupt):
        read_manifest(path)
