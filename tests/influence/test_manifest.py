import json
import math

import pytest

from influence.errors import IndexCorrupt, IndexTooNew
from influence.manifest import (
    FORMAT_VERSION,
    IndexSettings,
    check_files,
    dims_for,
    read_manifest,
)


def test_a_manifest_reads_as_it_was_written(hand_made):
    """Infinity included, which JSON does not know."""
    path = hand_made.directory / "manifest.json"
    assert read_manifest(path) == hand_made.manifest
    assert read_manifest(path).to_bytes() == path.read_bytes()
    assert math.isinf(read_manifest(path).settings.joint_damping)
    json.loads(path.read_bytes(), parse_constant=pytest.fail)  # no bare Infinity or NaN


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"{", b"[]", b"null", b"7", b'"x"', b"{}", b"\xff\xfe", b"\0" * 100),
        *(b'{"format_version": %s}' % version for version in (b"2", b"null", b'"1"')),
    ],
)
def test_garbage_is_refused_by_name(tmp_path, content):
    path = tmp_path / "manifest.json"
    path.write_bytes(content)
    with pytest.raises(IndexCorrupt, match=r"manifest\.json is missing or is no manifest"):
        read_manifest(path)


def test_a_missing_manifest_is_refused_by_name(tmp_path):
    with pytest.raises(IndexCorrupt, match=str(tmp_path)):
        read_manifest(tmp_path / "manifest.json")


def _edited(hand_made, **changes):
    path = hand_made.directory / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), **changes}))
    return path


def test_a_newer_format_is_refused_with_both_versions(hand_made):
    """Also where the newer format has fields that this program does not know."""
    path = _edited(hand_made, format_version=FORMAT_VERSION + 6, novelty=[1])
    with pytest.raises(IndexTooNew, match=f"version {FORMAT_VERSION + 6}.* up to {FORMAT_VERSION}"):
        read_manifest(path)


def test_a_field_that_is_unknown_in_this_format_is_refused(hand_made):
    with pytest.raises(IndexCorrupt):
        read_manifest(_edited(hand_made, novelty=1))


@pytest.mark.parametrize(
    "wrong",
    [
        *({"damping": 0.0}, {"damping": math.nan}, {"joint_damping": -1}, {"rank": 0}),
        *({"dims": 7}, {"max_length": 1}, {"hessian": "magic"}, {"unknown": 1}),
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValueError):
        IndexSettings(**wrong)


def test_every_file_is_checked(hand_made):
    check_files(hand_made.directory, hand_made.manifest)
    listed = set(hand_made.manifest.files) | {"manifest.json"}
    there = {
        str(path.relative_to(hand_made.directory))
        for path in hand_made.directory.rglob("*")
        if path.is_file()
    }
    assert there == listed


def test_dims_that_nobody_chose_keep_the_vectors_within_a_few_gigabytes():
    assert (dims_for(1), dims_for(131_072), dims_for(131_073)) == (16_384, 16_384, 4_096)
    assert 2 * 131_072 * dims_for(131_072) == 4 * 2**30
