"""What was measured of an index goes into its manifest, as a version that shares every file."""

from collections.abc import Sequence
from pathlib import Path

from influence.change import NextVersion
from influence.errors import InvalidInput
from influence.lock import changing
from influence.manifest import Change, Quality
from influence.store import IndexReader


def attach_quality(index_dir: Path, version: str, measured: Sequence[Quality]) -> str:
    """Publish the current version with what was measured of it.

    A measure that the version has already takes its new value; the others stay.

    Args:
        index_dir: The index.
        version: That was measured.
        measured: At most one of each measure.

    Returns:
        The name of the published version; the current one where nothing is new.

    Raises:
        InvalidInput: Another version is current by now.
        IndexBusy: Another change does not end.
        IndexUnavailable: There is no index, or it is damaged.
        StorageFull: The folder cannot be written.
    """
    with changing(index_dir):
        reader = IndexReader.open(index_dir)
        if reader.version != version:
            raise InvalidInput(
                f"Version {version} was measured, and {reader.version} of {index_dir} is current "
                "by now. Measure again."
            )
        known = {entry.measure: entry for entry in reader.manifest.quality}
        following = {**known, **{entry.measure: entry for entry in measured}}
        if following == known:
            return version
        prepared = NextVersion(reader)
        prepared.keep_all_but()
        prepared.keep_search()
        change = Change(kind="measured", parent=version)
        quality = tuple(following[name] for name in sorted(following))
        plan = {"quality": [entry.model_dump(mode="json") for entry in quality]}
        return prepared.publish(change, plan, quality=quality)
