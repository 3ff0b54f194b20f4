"""One virtual environment for each peer, on top of the packages Whence runs with.

A peer's own packages are installed into an environment of its own; torch, transformers and numpy
are those of this program, found behind them, so that every side computes with the same builds.
"""

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

PEERS = {
    "kronfluence": ("kronfluence==1.0.1", "einconv==0.1.0", "einops==0.8.2", "opt_einsum==3.4.0"),
    "logix": ("logix-ai==0.1.1", "einops==0.8.2"),
    "dattri": ("dattri==0.3.0", "dattri-llm==0.1.0"),
    "bergson": (
        "bergson==2.5.1",
        "simple_parsing",
        "docstring_parser",
        "ml_dtypes",
        "jaxtyping",
        "wadler_lindig",
        "natsort",
        "torchopt",
        "petname",
    ),
}


def python_of(peer: str, folder: Path) -> Path:
    """The interpreter of a peer's environment, made and filled where it is not there."""
    home = folder / peer
    python = home / "bin" / "python"
    done = home / "installed"
    behind = sysconfig.get_paths()["purelib"]
    contents = "\n".join((behind, *PEERS[peer]))
    if done.is_file() and done.read_text() == contents:
        return python
    venv.create(home, with_pip=False, clear=True)
    (inside,) = (home / "lib").glob("python3.*/site-packages")
    (inside / "zz_base.pth").write_text(behind)
    # LogIX declares an older Python and runs on this one.
    options = ["--no-deps", "--no-compile", "--quiet", "--ignore-requires-python"]
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", *options]
    subprocess.run([*command, *PEERS[peer]], check=True)
    done.write_text(contents)
    return python
