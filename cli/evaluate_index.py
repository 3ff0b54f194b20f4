"""`whence evaluate retrieval`, `tail-patch` and `lds`: how good is the ranking of an index?"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from evaluation.index_quality import Measured

Index = Annotated[Path, typer.Argument(help="The index folder.")]
Queries = Annotated[
    Path | None,
    typer.Option(
        help="JSON lines, each with prompt, response and, where known, documents: ids of those "
        "that state the answer. By default passages are asked for their own second halves."
    ),
]
Model = Annotated[
    str | None, typer.Option(help="The model; the one that the index names by default.")
]
Count = Annotated[int, typer.Option(min=2, help="Passages asked for, without --queries.")]
Seed = Annotated[int, typer.Option(help="Of what is drawn at random.")]
Attach = Annotated[
    bool, typer.Option("--attach", help="Write the figures into the manifest, as a new version.")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, spread …")]


def retrieval(
    index: Index,
    queries: Queries = None,
    model: Model = None,
    count: Count = 50,
    seed: Seed = 0,
    attach: Attach = False,
    device: Device = "auto",
) -> None:
    """Recall@k and MRR of documents that are known to state the answers, and of baselines."""
    from evaluation.index_quality import measure_retrieval

    asked = _ask(index, queries, model, count, seed, device)
    measured = measure_retrieval(asked.reader, asked.questions, asked.rankings)
    _deliver(asked, measured, f"{asked.protocol}, by relative influence", attach=attach)


def tail_patch(
    index: Index,
    queries: Queries = None,
    model: Model = None,
    count: Count = 20,
    seed: Seed = 0,
    top_k: Annotated[int, typer.Option("-k", min=1, help="Passages of the step.")] = 10,
    step: Annotated[
        float, typer.Option(min=1e-9, max=1, help="Its length, a share of the weights' norm.")
    ] = 1e-3,
    attach: Attach = False,
    device: Device = "auto",
) -> None:
    """How much one training step on the proponents raises the answer's likelihood, in nats."""
    from evaluation.index_quality import measure_tail_patch

    asked = _ask(index, queries, model, count, seed, device)
    measured = measure_tail_patch(
        asked.loaded,
        asked.questions,
        asked.passages,
        asked.rankings,
        top_k=top_k,
        step=step,
        reporter=asked.reporter,
    )
    protocol = (
        f"{asked.protocol}; one step of {step:g} of the weights' norm on the first {top_k} "
        "passages by relative influence; change of the answer's log-likelihood in nats"
    )
    _deliver(asked, measured, protocol, attach=attach)


def lds(
    index: Index,
    queries: Annotated[Path, typer.Option(help="JSON lines, each with prompt and response.")],
    retrained: Annotated[
        Path,
        typer.Option(
            help="An .npz of models trained on subsets: subsets [S, documents] of bool, outputs "
            "[S, queries], the log-likelihood of each response."
        ),
    ],
    model: Model = None,
    seed: Seed = 0,
    attach: Attach = False,
    device: Device = "auto",
) -> None:
    """Whether scores, summed over subsets, rank the models that were trained on them."""
    from evaluation.index_lds import measure_lds, read_retrained

    asked = _ask(index, queries, model, 0, seed, device)
    documents = len(asked.reader.document_ids())
    subsets, outputs = read_retrained(
        retrained, documents=documents, questions=len(asked.questions)
    )
    measured = measure_lds(asked.reader, asked.rankings, subsets, outputs)
    protocol = f"{asked.protocol}; {len(subsets)} models retrained on subsets of the documents"
    _deliver(asked, measured, protocol, attach=attach)


@dataclass(frozen=True)
class _Asked:
    reader: Any
    loaded: Any
    questions: Any
    passages: Any
    rankings: Any
    protocol: str
    prefix: str
    reporter: Any


def _ask(
    index: Path, queries: Path | None, model: str | None, count: int, seed: int, device: str
) -> _Asked:
    from evaluation.questions import own_halves, read_questions
    from evaluation.rankings import all_rankings, passage_tokens
    from indexer.progress import Reporter
    from influence.model import load_model
    from influence.store import IndexReader, check_built_from

    reporter = Reporter()
    reader = IndexReader.open(index)
    # A step of training would be lost in bfloat16.
    loaded = load_model(model or reader.manifest.model.name, device=device, dtype="float32")
    check_built_from(reader, loaded)
    if queries is None:
        questions = own_halves(reader, loaded.tokenizer, count=count, seed=seed)
        protocol = f"second halves of {len(questions)} passages asked for by the first"
    else:
        questions = read_questions(queries, loaded, reader)
        protocol = f"{len(questions)} questions of {queries.name}"
    passages = passage_tokens(reader, loaded)
    rankings = all_rankings(reader, loaded, questions, passages, seed=seed, reporter=reporter)
    protocol += f", {len(reader)} passages"
    prefix = "own_" if queries is None else ""
    return _Asked(reader, loaded, questions, passages, rankings, protocol, prefix, reporter)


def _deliver(asked: _Asked, measured: "Sequence[Measured]", protocol: str, *, attach: bool) -> None:
    from evaluation.index_quality import as_quality, table
    from influence.attachment import attach_quality

    typer.echo(f"{protocol[0].upper()}{protocol[1:]}.\n\n{table(measured)}")
    if attach:
        quality = as_quality(
            measured, protocol=protocol, date=datetime.now(UTC).date(), prefix=asked.prefix
        )
        version = attach_quality(asked.reader.index_dir, asked.reader.version, quality)
        typer.echo(f"\nAttached: version {version}.")
