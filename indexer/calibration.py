"""How high the best score of an answer rises that comes from no document of the index.

Three kinds of null answers are asked of a finished index:

- *mixed*: every token drawn from another place of the corpus, so its words and its frequencies, and
  nothing that a document says;
- *random*: every token drawn evenly from the vocabulary;
- *outside*: everyday questions and their answers (`indexer.outside`).

Nobody knows which of them an answer from outside will resemble, so the kind whose best z-scores
rise highest (by their .95 quantile) is the calibration, for proponents and opponents by themselves:
a promise that holds for it holds for the others. Lengths are those of the corpus, up to
`MOST_TOKENS`. Everything is drawn from the seed: the same index has the same calibration.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from indexer.batches import batches
from indexer.halving import Halving
from indexer.outside import OUTSIDE
from indexer.progress import Reporter
from influence.encoder import Encoded, GradientEncoder
from influence.errors import InvalidInput
from influence.manifest import Calibration, IndexSettings
from influence.noise import best_z
from influence.tokens import TokenSequence, query_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MOST_TOKENS = 64  # of a drawn response; longer ones cost time and change little
_PROMPT_TOKENS = 12
_TRIES = 4  # draws for each answer wanted, since a draw may decode to no text
_SCORES_AT_ONCE = 2**26  # float32 numbers of [queries, rows]: 256 MB


@dataclass(frozen=True)
class _Null:
    """One null answer in tokens."""

    id: str
    tokens: TokenSequence


def calibrate(
    encoder: GradientEncoder,
    sample: Sequence[TokenSequence],
    vectors: Sequence[np.ndarray],
    settings: IndexSettings,
    *,
    reporter: Reporter,
) -> Calibration:
    """Measure null answers against an index.

    Args:
        encoder: Model and basis of the index.
        sample: Some of its passages, for the words and lengths of the corpus.
        vectors: The unit vectors of its shards, fp16 ``[n, D]``, memory-mapped for the better.
        settings: Of the index; ``null_queries`` of each kind are asked.
        reporter: Told how far the work is.

    Returns:
        Nothing where the settings ask for none, or no null answer has a gradient.
    """
    if not settings.null_queries:
        return Calibration()
    kinds = _null_answers(encoder, sample, settings)
    total = sum(len(answers) for answers in kinds.values())
    proponents: dict[str, np.ndarray] = {}
    opponents: dict[str, np.ndarray] = {}
    with reporter.step("Calibrating confidence", total=total, unit="answers") as advance:
        for kind, answers in kinds.items():
            queries = _unit_vectors(encoder, answers, settings)
            if len(queries):
                best = np.concatenate(list(_best(queries, vectors)))
                proponents[kind], opponents[kind] = best[:, 0], best[:, 1]
            advance(len(answers))
    return Calibration(
        null_best_z=_highest(proponents),
        null_opponent_z=_highest(opponents),
        null_quantiles={kind: float(np.quantile(z, 0.95)) for kind, z in proponents.items()},
    )


def _highest(kinds: dict[str, np.ndarray]) -> tuple[float, ...]:
    """The z-scores of the kind that rises highest, sorted."""
    if not kinds:
        return ()
    return tuple(np.sort(max(kinds.values(), key=lambda z: np.quantile(z, 0.95))).tolist())


def _null_answers(
    encoder: GradientEncoder, sample: Sequence[TokenSequence], settings: IndexSettings
) -> dict[str, list[_Null]]:
    loaded = encoder.loaded
    tokenizer, longest = loaded.tokenizer, loaded.context_length
    special = set(tokenizer.all_special_ids)
    words = [
        token
        for tokens in sample
        for token, target in zip(tokens.input_ids, tokens.targets, strict=True)
        if target and token not in special
    ]
    lengths = [min(sum(tokens.targets), MOST_TOKENS) for tokens in sample]
    vocabulary = [token for token in range(len(tokenizer)) if token not in special]
    texts = {
        "mixed": _drawn(words, lengths, tokenizer, settings, number=0),
        "random": _drawn(vocabulary, lengths, tokenizer, settings, number=1),
        "outside": iter(OUTSIDE),
    }
    return {
        kind: _in_tokens(kind, pairs, tokenizer, longest, settings.null_queries)
        for kind, pairs in texts.items()
    }


def _drawn(
    pool: Sequence[int],
    lengths: Sequence[int],
    tokenizer: "PreTrainedTokenizerBase",
    settings: IndexSettings,
    *,
    number: int,
) -> Iterator[tuple[str, str]]:
    """Prompts and responses of tokens drawn from a pool."""
    if not pool or not lengths:
        return
    draw = np.random.default_rng([settings.seed, number])
    for _ in range(_TRIES * settings.null_queries):
        length = max(1, int(draw.choice(lengths)))
        ids = draw.choice(pool, _PROMPT_TOKENS + length).tolist()
        prompt, response = ids[:_PROMPT_TOKENS], ids[_PROMPT_TOKENS:]
        yield str(tokenizer.decode(prompt)), str(tokenizer.decode(response))


def _in_tokens(
    kind: str,
    pairs: Iterator[tuple[str, str]],
    tokenizer: "PreTrainedTokenizerBase",
    longest: int,
    wanted: int,
) -> list[_Null]:
    """The first answers that the model can read."""
    found: list[_Null] = []
    for prompt, response in pairs:
        if len(found) == wanted:
            break
        try:
            tokens = query_tokens(prompt, response, tokenizer, max_length=longest)
        except InvalidInput:  # no text, too long, or refused by the chat template: another draw
            continue
        found.append(_Null(f"{kind} {len(found)}", tokens))
    return found


def _unit_vectors(
    encoder: GradientEncoder, answers: Sequence[_Null], settings: IndexSettings
) -> np.ndarray:
    """``[Q, D]`` float32, those without a direction left out."""
    vectors = np.zeros((len(answers), encoder.basis.vector_dims), dtype=np.float32)
    halving = Halving()

    def encode(part: list[int]) -> Encoded:
        return encoder.encode([answers[i].tokens for i in part])

    for group in batches(answers, token_budget=settings.batch_tokens):
        for part, encoded in halving.run(answers, group, encode):
            vectors[part] = encoded.vectors.cpu().numpy()
    norms = np.linalg.norm(vectors.astype(np.float64), axis=1)
    usable = np.isfinite(norms) & (norms > 0)
    return (vectors[usable] / norms[usable, None]).astype(np.float32)


def _best(queries: np.ndarray, vectors: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
    """The best z for and against of each query, ``[q, 2]``, for runs of queries."""
    rows = sum(len(shard) for shard in vectors)
    at_once = max(1, _SCORES_AT_ONCE // max(rows, 1))
    dims = queries.shape[1]
    for start in range(0, len(queries), at_once):
        run = queries[start : start + at_once]
        scores = np.concatenate([run @ shard.astype(np.float32).T for shard in vectors], axis=1)
        yield np.array([[best_z(row, dims=dims), best_z(-row, dims=dims)] for row in scores])
