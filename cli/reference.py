"""`whence attribute --method`: an answer by a reference method, for people and for programs."""

import json
from typing import TYPE_CHECKING

from influence.errors import InvalidInput

if TYPE_CHECKING:
    from influence.store import IndexReader
    from service.schemas import AttributeRequest

SNIPPET_CHARACTERS = 160


def attribute_by_reference(
    index: str,
    model: str | None,
    request: "AttributeRequest",
    method: str,
    *,
    device: str,
    dtype: str,
    as_json: bool,
) -> str:
    """Rank the passages of a small index by full gradients.

    Raises:
        InvalidInput: The request asks for what only stored vectors give, or see
            `evaluation.attribution.attribute_by`.
    """
    if request.measurement != "loss" or request.explain or request.filter:
        raise InvalidInput(
            "A reference method explains the loss of a response or a span of it, over the whole "
            "index. Leave --measurement, --explain, --owner and --source out, or --method."
        )
    from evaluation.attribution import attribute_by
    from influence.model import load_model
    from influence.store import IndexReader
    from influence.tokens import query_tokens
    from influence.transfer import local_index

    reader = IndexReader.open(local_index(index))
    try:
        identity = reader.manifest.model
        loaded = load_model(
            model or identity.name,
            device=device,
            dtype=identity.dtype if dtype == "auto" else dtype,
        )
        query = query_tokens(
            request.prompt,
            request.response,
            loaded.tokenizer,
            max_length=loaded.context_length,
            span=(request.span.start, request.span.end) if request.span else None,
        )
        found = attribute_by(method, reader, loaded, query)
        if request.ranking == "influence":
            found.sort(key=lambda hit: -hit[1])
        sides = {
            "proponents": [hit for hit in found if hit[1] > 0][: request.top_k],
            "opponents": [hit for hit in reversed(found) if hit[1] < 0][: request.top_k],
        }
        hits = {
            side: [
                {
                    "passage_id": reader.passage(row).id,
                    "influence": influence,
                    "relative_influence": relative,
                    "text": _text(reader, row),
                }
                for row, influence, relative in rows
            ]
            for side, rows in sides.items()
        }
    finally:
        reader.close()
    if as_json:
        return json.dumps({"method": method, **hits}, indent=2, ensure_ascii=False)
    lines = [f"By {method}, with full gradients (relative influence, influence)"]
    for side, rows in hits.items():
        lines += ["", side.capitalize()]
        for rank, hit in enumerate(rows, start=1):
            lines += [
                f"{rank:>3}. {hit['relative_influence']:+.3f}  {hit['influence']:+.4g}  "
                f"{hit['passage_id']}",
                f"     {' '.join(hit['text'].split())[:SNIPPET_CHARACTERS]}",
            ]
    return "\n".join(lines)


def _text(reader: "IndexReader", row: int) -> str:
    passage = reader.passage(row)
    return reader.document(passage.document_id).text[passage.start : passage.end]
