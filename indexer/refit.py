"""Fit an index anew on the documents it holds, beside the version that is being served.

The texts come from the index itself, so the corpus need not be at hand, and what was removed from
it stays away. The version being served is read all the while, and answers as before until the next
one is published.
"""

from pathlib import Path

from indexer.build import build_index
from indexer.progress import Reporter
from influence.model import LoadedModel
from influence.store import IndexReader


def refit_index(
    index_dir: Path, loaded: LoadedModel, *, reporter: Reporter, restart: bool = False
) -> str:
    """Build the next version from the documents of the current one, with its settings.

    Args:
        index_dir: The index.
        loaded: The model of the index, or the one it was trained on to since.
        reporter: Told how far the work is.
        restart: Throw unfinished work in the folder away first.

    Returns:
        The name of the published version.

    Raises:
        IndexUnavailable: There is no index, or it is damaged.
        BuildConflict: The folder holds other unfinished work, or the index was changed meanwhile.
    """
    reader = IndexReader.open(index_dir)
    return build_index(
        str(reader.directory),
        loaded,
        index_dir,
        reader.manifest.settings,
        reporter=reporter,
        restart=restart,
        refitted=reader,
    )
