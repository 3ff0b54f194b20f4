"""`whence quality`: near-duplicates and odd documents of an index, and the corpus without them."""

from pathlib import Path
from typing import Annotated

import typer

from influence.store import IndexReader
from influence.transfer import local_index

SHOWN = 20  # lines of each table


def quality(
    index: Annotated[str, typer.Argument(help="The index: a folder, or a URL such as s3://….")],
    jaccard: Annotated[
        float, typer.Option(help="Duplicates share this much of their three-word runs, or more.")
    ] = 0.8,
    cosine: Annotated[
        float, typer.Option(help="Duplicates have vectors of this cosine, or more.")
    ] = 0.95,
    max_z: Annotated[
        float,
        typer.Option(min=0, help="Odd is what has a self-influence further out than this."),
    ] = 5.0,
    json: Annotated[bool, typer.Option("--json", help="Everything, as one JSON object.")] = False,
    keep: Annotated[
        Path | None, typer.Option(help="File for the ids of the documents to keep, one a line.")
    ] = None,
    drop: Annotated[
        Path | None, typer.Option(help="File for the ids of duplicates and odd documents.")
    ] = None,
    dataset: Annotated[
        Path | None, typer.Option(help="Folder for what is kept, as a Hugging Face dataset.")
    ] = None,
) -> None:
    """Find near-duplicates, by words and by vectors, and documents that stand out; no model.

    What its neighbours contradict is told as well: it may be wrong, and is not dropped.
    """
    from service.ledger.chain import canonical
    from service.valuation.agreement import by_agreement
    from service.valuation.curation import Export
    from service.valuation.duplicates import find_duplicates
    from service.valuation.outliers import by_oddness

    export = Export(keep, drop, dataset)
    export.check()
    reader = IndexReader.open(local_index(index))
    duplicates = find_duplicates(reader, jaccard=jaccard, cosine=cosine)
    odd = [one for one in by_oddness(reader) if one.z > max_z]
    against = [one for one in by_agreement(reader) if one.agreement < 0]
    if export != Export():
        dropped = {one.document_id for one in [*duplicates, *odd]}
        export.write(reader, [d for d in reader.document_ids() if d not in dropped])
    if json:
        found = {
            "index_version": reader.version,
            "documents": len(reader.document_ids()),
            "duplicates": [vars(one) for one in duplicates],
            "outliers": [vars(one) for one in odd],
            "contradicted": [vars(one) for one in against],
        }
        typer.echo(canonical(found))
        return
    typer.echo(f"{len(duplicates)} of {len(reader.document_ids())} documents are near-duplicates.")
    for one in duplicates[:SHOWN]:
        typer.echo(f"{one.similarity:7.3f}  {one.by:<6}  {one.document_id} of {one.duplicate_of}")
    typer.echo(f"{len(odd)} have a self-influence beyond {max_z:g} robust standard deviations.")
    for one in odd[:SHOWN]:
        typer.echo(f"{one.z:7.1f}  {one.document_id}  {one.owner or ''}")
    typer.echo(f"{len(against)} are contradicted by what is most like them; they stay.")
    for one in against[:SHOWN]:
        typer.echo(f"{one.agreement:7.3f}  {one.document_id} by {one.against}")
    if max(len(duplicates), len(odd), len(against)) > SHOWN:
        typer.echo(f"The first {SHOWN} of each are shown; --json tells all.")
