"""`whence evaluate`: is the ranking right? Of small models by retraining, of an index without."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli import evaluate_index

if TYPE_CHECKING:
    from evaluation.trial import Name

app = typer.Typer(
    help="Is the ranking right? Of small models by retraining, of an index without.",
    no_args_is_help=True,
)
app.command("retrieval")(evaluate_index.retrieval)
app.command("tail-patch")(evaluate_index.tail_patch)
app.command("lds")(evaluate_index.lds)

Task = Annotated[str, typer.Option(help="language, digits, cnn, tumours, diabetes or all.")]
Small = Annotated[bool, typer.Option("--small", help="A size of seconds, to try the command.")]
Out = Annotated[Path | None, typer.Option(help="Folder for the table as .md and .json.")]
Cache = Annotated[
    Path | None, typer.Option(help="Folder of retrained models; the user's cache by default.")
]


@app.command("methods")
def methods(task: Task = "all", small: Small = False, out: Out = None, cache: Cache = None) -> None:
    """Compare every method by LDS, recall of planted facts, time and size."""
    from evaluation.run import run_methods

    run_methods(_tasks(task), small=small, out=out, cache=cache, show=typer.echo)


@app.command("finetuned")
def finetuned(
    configuration: Annotated[Path, typer.Argument(help="JSON; docs/configurations has one.")],
    out: Out = None,
    cache: Cache = None,
    device: evaluate_index.Device = "auto",
) -> None:
    """LDS of a model fine-tuned on blocks of text: GPT-2 on WikiText-2 as in the papers."""
    from evaluation.finetuned import FinetuneSettings
    from evaluation.run import run_finetuned

    settings = FinetuneSettings.read(configuration)
    run_finetuned(settings, device=device, out=out, cache=cache, show=typer.echo)


@app.command("brittleness")
def brittleness(small: Small = False, out: Out = None, cache: Cache = None) -> None:
    """Remove the first proponents of digits, retrain, and see how many answers break."""
    from evaluation.run import run_brittleness

    run_brittleness(small=small, out=out, cache=cache, show=typer.echo)


@app.command("curation")
def curation(small: Small = False, out: Out = None, cache: Cache = None) -> None:
    """Train on the most valuable digits of a noisy set; find wrong labels and poisoned digits."""
    from evaluation.run import run_curation

    run_curation(small=small, out=out, cache=cache, show=typer.echo)


@app.command("source")
def source(
    task: Annotated[str, typer.Option(help="digits, language or all.")] = "all",
    small: Small = False,
    out: Out = None,
    cache: Cache = None,
) -> None:
    """Compare methods that know how training went (SOURCE, TracIn, unrolling) with influence."""
    from evaluation.cache import default_cache_dir
    from evaluation.training import NAMES, run_training
    from indexer.progress import Reporter

    if task not in (*NAMES, "all"):
        raise typer.BadParameter(f"{task!r} is not one of {', '.join(NAMES)} and all")
    for name in NAMES if task == "all" else (task,):
        run_training(
            name,
            small=small,
            out=out,
            cache=cache or default_cache_dir(),
            show=typer.echo,
            reporter=Reporter(),
        )


@app.command("ranks")
def ranks(small: Small = False, out: Out = None, cache: Cache = None) -> None:
    """Rank and dims against LDS and logging time on the language task, with plots."""
    from evaluation.ranks import run_ranks

    run_ranks(small=small, out=out, cache=cache, show=typer.echo)


def _tasks(task: str) -> "tuple[Name, ...]":
    from evaluation.trial import NAMES

    choices: dict[str, tuple[Name, ...]] = {"all": NAMES}
    for name in NAMES:
        choices[name] = (name,)
    if task not in choices:
        raise typer.BadParameter(f"{task!r} is not one of {', '.join(NAMES)} and all")
    return choices[task]
