"""The demo's cache: folders that are whole or absent, under names that say what made them.

Every step writes one folder or file. It is written under a temporary name, flushed and renamed, so
whatever stands under its final name is complete, and a demo that was killed at any moment starts
again after its last finished step.
"""

import fcntl
import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from influence.atomic import flush_to_disk, storage_errors
from influence.errors import BuildConflict, StorageFull


def fingerprint(inputs: Mapping[str, Any]) -> str:
    """Twelve hexadecimal digits of the sha256 of JSON-like inputs; equal for equal inputs."""
    text = json.dumps(inputs, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@contextmanager
def locked(cache_dir: Path) -> Iterator[None]:
    """Hold the cache alone; the system lets go of it even when this process is killed.

    Raises:
        BuildConflict: Another process is preparing the demo in the same cache.
        StorageFull: The folder cannot be made or written.
    """
    with storage_errors(cache_dir):
        cache_dir.mkdir(parents=True, exist_ok=True)
        lock = (cache_dir / "demo.lock").open("w")
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BuildConflict(
                f"Another demo is preparing its model and index in {cache_dir}. Wait until its "
                "server is up, or choose another cache folder."
            ) from None
        yield


@contextmanager
def new_folder(final: Path) -> Iterator[Path]:
    """Yield an empty folder that becomes ``final`` when the block ends well, else disappears.

    Raises:
        StorageFull: The disk is full, or the folder cannot be written.
    """
    partial = final.with_name(f"{final.name}.partial")
    with storage_errors(final):
        shutil.rmtree(partial, ignore_errors=True)  # left by a run that was killed
        partial.mkdir(parents=True)
        try:
            yield partial
            for path in sorted(partial.rglob("*")):
                flush_to_disk(path)
            flush_to_disk(partial)
            partial.rename(final)
            flush_to_disk(final.parent)
        except SafetensorError as error:  # its own class, even where the cause is the disk
            raise StorageFull(
                f"Writing {final} failed: {error}. Free some space and run the same command "
                "again; it continues where it stopped."
            ) from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)
