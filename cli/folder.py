"""The argument INDEX of commands that write: a folder, and no URL."""

from pathlib import Path
from typing import Annotated

import typer

from influence.remote import folder_of

Index = Annotated[Path, typer.Argument(help="The index folder.", parser=folder_of, metavar="INDEX")]
