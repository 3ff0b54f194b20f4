"""`python -m indexer CORPUS --model M --out INDEX`: `whence index`, on machines that only index.

    torchrun --nproc-per-node 8 -m indexer CORPUS --model M --out INDEX

Exit status 2 is a usage error, 1 any other failure.
"""

import logging
import sys

import typer

from indexer.command import index
from influence.errors import AttributionError


def main() -> None:
    """Run; every expected failure is one line and exit status 1."""
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    app = typer.Typer(pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command(name="indexer")(index)
    try:
        app()
    except AttributionError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("error: interrupted. Run the same command again to continue.")


if __name__ == "__main__":
    main()
