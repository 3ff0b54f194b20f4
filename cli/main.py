"""The `whence` command.

    whence demo
    whence index corpus.jsonl --model MODEL --out INDEX
    whence keys create --name NAME --file keys.json
    whence serve INDEX --keys keys.json
    whence attribute INDEX --model MODEL --prompt P --response R

Results go to stdout, progress to stderr. Exit status 2 is a usage error, 1 any other failure, told
in one line that says what to do.
"""

import logging
import sys

import typer

from cli import (
    add,
    attribute,
    demo,
    evaluate,
    game,
    inspect,
    keys,
    ledger,
    payout,
    quality,
    record,
    redamp,
    refit,
    remove,
    report,
    search_index,
    serve,
    storage,
    tune,
    value,
    versions,
    worker,
)
from indexer import command
from influence.errors import AttributionError

app = typer.Typer(
    help="Which training documents did an answer come from, and what is each worth?",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("demo")(demo.demo)
app.command("index")(command.index)
app.command("record")(record.record)
app.command("redamp")(redamp.redamp)
app.command("attribute")(attribute.attribute)
app.command("search-index")(search_index.search_index)
app.command("serve")(serve.serve)
app.command("worker")(worker.worker)
app.add_typer(keys.app, name="keys")
app.add_typer(ledger.app, name="ledger")
app.command("valuations")(payout.valuations)
app.command("game")(game.game)
app.command("payout")(payout.payout)
app.command("value")(value.value)
app.command("quality")(quality.quality)
app.command("report")(report.report)
app.command("info")(inspect.info)
app.command("verify")(inspect.verify)
app.command("add")(add.add)
app.command("refit")(refit.refit)
app.command("remove")(remove.remove)
app.command("compact")(remove.compact)
app.command("versions")(versions.versions)
app.command("rollback")(versions.rollback)
app.command("gc")(versions.gc)
app.command("push")(storage.push)
app.command("pull")(storage.pull)
app.add_typer(evaluate.app, name="evaluate")
app.command("tune")(tune.tune)


def main() -> None:
    """Run the command line; every expected failure is one line and exit status 1."""
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    try:
        app()
    except AttributionError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("error: interrupted. Run the same command again to continue.")


if __name__ == "__main__":
    main()
