"""One answer attributed by a reference method: full gradients of every passage of a small index.

Nothing that the index stores is used but its documents and its choice of layers and damping, so the
result is what the stored vectors approximate. It costs a pass of the model over all passages for
every answer, and the memory of all their gradients.
"""

from collections.abc import Sequence

import numpy as np

from evaluation.catalogue import FULL_EKFAC
from evaluation.methods import (
    Dampings,
    FullGradient,
    Method,
    Projected,
    by_conjugate_gradients,
    by_lissa,
    exact,
)
from evaluation.subject import UNSKETCHED, Subject
from evaluation.trial import drawn_tokens
from influence.encoder import LanguageModelLoss
from influence.errors import InvalidInput
from influence.manifest import IndexSettings, LayerEntry
from influence.model import LoadedModel
from influence.store import IndexReader, check_built_from
from influence.stored_tokens import StoredTokens
from influence.tokens import TokenSequence

MOST_BYTES = 4 * 2**30  # of float32 gradients; a solve holds them about three times
METHODS = ("dot", "gauss-newton", "fisher", "cg", "lissa", "ekfac")


def attribute_by(
    name: str, reader: IndexReader, loaded: LoadedModel, query: TokenSequence
) -> list[tuple[int, float, float]]:
    """Every row of an index with its influence on the loss of an answer.

    Args:
        name: One of `METHODS`: ``dot`` is the product of the gradients; ``gauss-newton`` solves
            with labels drawn from the model, ``fisher`` with those of the documents, ``cg`` and
            ``lissa`` do the same iteratively; ``ekfac`` is EK-FAC at the layers' full widths.
        reader: The index; its damping ``c`` is taken.
        loaded: The model that it was built from.
        query: The answer (`influence.tokens.query_tokens`).

    Returns:
        Row, influence (nats, positive for a proponent) and relative influence of every row, the
        highest relative influence first.

    Raises:
        IndexMismatch: The index was built from another model.
        InvalidInput: An unknown method, or gradients beyond `MOST_BYTES`.
        NumericalError: A solver diverges.
    """
    method = _method(name, reader.manifest.layers)
    check_built_from(reader, loaded)
    _check_size(name, reader)
    tokens = StoredTokens(
        reader.document, loaded.tokenizer, max_length=reader.manifest.settings.max_length
    )
    subject = Subject(
        LanguageModelLoss(loaded),
        [tokens.of(reader.passage(row)) for row in range(len(reader))],
        (query,),
        drawn_tokens,
        layers=tuple(layer.name for layer in reader.manifest.layers),
    )
    fitted = method.fit(subject)
    damping = reader.manifest.settings.damping
    assert damping != "auto"  # a published index has a number
    scores = fitted.scores(fitted.capture(subject.queries), Dampings(damping, float("inf")))
    influence, relative = scores.influence[0], scores.relative[0]
    order = np.argsort(-relative, kind="stable")
    return [(int(row), float(influence[row]), float(relative[row])) for row in order]


def _method(name: str, layers: Sequence[LayerEntry]) -> Method:
    if name == "ekfac":
        widest = max(max(layer.d_in, layer.d_out) for layer in layers)
        names = tuple(layer.name for layer in layers)
        settings = IndexSettings.model_validate(
            {"rank": widest, "dims": UNSKETCHED, "layers": names}
        )
        return Projected(FULL_EKFAC, settings)
    chosen = {
        "dot": FullGradient("gradient dot product"),
        "gauss-newton": FullGradient("Gauss-Newton", exact, gauss_newton=True),
        "fisher": FullGradient("empirical Fisher", exact),
        "cg": FullGradient("conjugate gradients", by_conjugate_gradients),
        "lissa": FullGradient("LiSSA", by_lissa),
    }
    if name not in chosen:
        raise InvalidInput(
            f"There is no reference method {name!r}. Choose one of {', '.join(METHODS)}."
        )
    return chosen[name]


def _check_size(name: str, reader: IndexReader) -> None:
    weights = sum(layer.d_in * layer.d_out for layer in reader.manifest.layers)
    needed = 4 * weights * len(reader)
    if needed > MOST_BYTES:
        raise InvalidInput(
            f"The method {name} holds the gradients of {len(reader):,} passages in {weights:,} "
            f"weights, {needed / 2**30:,.0f} GiB, and {MOST_BYTES / 2**30:.0f} GiB is the most. "
            "Leave --method out: the index answers without them; or index fewer documents or "
            "layers of a smaller model to compare with."
        )
