"""The calibration of confidence: what it holds, and what it promises of answers of other kinds."""

import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest

from indexer.build import build_index
from indexer.calibration import calibrate
from indexer.outside import OUTSIDE
from indexer.progress import Silence
from indexer.redamp import redamp_index
from influence.basis import basis_of
from influence.encoder import GradientEncoder
from influence.errors import IndexMismatch
from influence.manifest import IndexSettings
from influence.store import IndexReader
from influence.stored_tokens import StoredTokens
from influence.tokens import query_tokens
from service.engine import Engine
from service.schemas import AttributeRequest

WORDS = [
    *("the", "king", "queen", "river", "mountain", "city", "ship", "gold", "silver", "bread"),
    *("wine", "of", "north", "south", "was", "in"),
]


def make_records(count: int = 120) -> list[dict]:
    draw = random.Random(0)
    return [
        {
            "id": f"d{number}",
            "prompt": " ".join(draw.choices(WORDS, k=6)) + "?",
            "response": " ".join(draw.choices(WORDS, k=draw.randint(8, 20))) + ".",
        }
        for number in range(count)
    ]


@pytest.fixture(scope="module")
def model(new_llama, chat_tokenizer, as_loaded):
    return as_loaded(new_llama(num_hidden_layers=1), chat_tokenizer)


SETTINGS = IndexSettings(
    rank=16, dims=512, max_length=96, batch_tokens=1024, shard_passages=64, null_queries=64
)


@pytest.fixture(scope="module")
def built(tmp_path_factory, model):
    """Builds an index of the records with changed settings."""

    def build(**changes) -> IndexReader:
        folder = tmp_path_factory.mktemp("calibrated")
        corpus = folder / "corpus.jsonl"
        corpus.write_text("".join(json.dumps(record) + "\n" for record in make_records()))
        settings = SETTINGS.model_copy(update=changes)
        build_index(str(corpus), model, folder / "index", settings, reporter=Silence())
        return IndexReader.open(folder / "index")

    return build


@pytest.fixture(scope="module")
def calibrated(built) -> IndexReader:
    return built()


@pytest.fixture
def copied(calibrated, tmp_path) -> Path:
    """The folder of the same index, to be changed."""
    shutil.copytree(calibrated.index_dir, tmp_path / "index")
    return tmp_path / "index"


def encoder_of(reader, model) -> GradientEncoder:
    return GradientEncoder(model, basis_of(reader))


def test_it_holds_the_best_scores_of_the_kind_that_rises_highest(calibrated, model):
    calibration = calibrated.manifest.calibration
    assert set(calibration.null_quantiles) == {"mixed", "random", "outside"}
    assert len(calibration.null_best_z) == len(calibration.null_opponent_z) == 64
    assert list(calibration.null_best_z) == sorted(calibration.null_best_z)
    highest = max(calibration.null_quantiles.values())
    assert np.quantile(calibration.null_best_z, 0.95) == pytest.approx(highest)
    # The outside answers one by one, by the textbook formula over every row.
    encoder = encoder_of(calibrated, model)
    rows = np.concatenate(calibrated.vector_shards()).astype(np.float64)
    best = []
    for prompt, response in OUTSIDE:
        tokens = query_tokens(prompt, response, model.tokenizer, max_length=256)
        query = encoder.encode([tokens]).vectors[0].double().numpy()
        scores = rows @ query / np.linalg.norm(query)
        spread = 1.4826 * np.median(np.abs(scores - np.median(scores)))
        best.append((scores.max() - np.median(scores)) / max(spread, rows.shape[1] ** -0.5))
    # In batches float32 sums differ in their order; z is some ten times their relative error.
    assert calibration.null_quantiles["outside"] == pytest.approx(np.quantile(best, 0.95), rel=1e-3)


def test_the_same_seed_gives_the_same_calibration_and_another_seed_another(calibrated, model):
    reader = calibrated
    settings = reader.manifest.settings.model_copy(update={"null_queries": 20})
    tokens = StoredTokens(reader.document, model.tokenizer, max_length=settings.max_length)
    sample = [tokens.of(reader.passage(row)) for row in range(0, len(reader), 3)]
    encoder = encoder_of(reader, model)

    def run(**changes):
        chosen = settings.model_copy(update=changes)
        return calibrate(encoder, sample, reader.vector_shards(), chosen, reporter=Silence())

    assert run() == run()
    assert run().null_quantiles["mixed"] != run(seed=1).null_quantiles["mixed"]
    assert run(null_queries=0).null_best_z == ()


def test_one_in_twenty_answers_of_other_kinds_stands_out(calibrated, model):
    """Kinds that the calibration has not seen, since nobody knows what people will ask."""
    draw = random.Random(5)
    syllables = ("ba", "do", "fe", "gi", "ku", "la", "mo", "ne", "pa", "ri")

    def invented(k):
        return " ".join("".join(draw.choices(syllables, k=3)) for _ in range(k))

    kinds = {
        "invented words": lambda: (invented(4), invented(8)),
        "figures": lambda: ("sum?", " ".join(str(draw.randrange(10**5)) for _ in range(8))),
        "code": lambda: (
            "write code",
            f"def {invented(1)}(x):\n    return x[{draw.randrange(99)}] + {invented(1)}(x)",
        ),
        "the corpus in capitals": lambda: ("WHO?", " ".join(draw.choices(WORDS, k=9)).upper()),
        "one letter": lambda: ("?", draw.choice("abcdefghij") * draw.randint(5, 20)),
    }
    engine = Engine(calibrated, model, search_memory_bytes=2**30)
    each = 40
    wrong = {}
    for kind, answer in kinds.items():
        wrong[kind] = 0
        for _ in range(each):
            prompt, response = answer()
            request = AttributeRequest(prompt=prompt, response=response, top_k=1)
            wrong[kind] += engine.attribute(request, request_id="").query.stands_out
    own = sum(
        engine.attribute(
            AttributeRequest(prompt=r["prompt"], response=r["response"], top_k=1), request_id=""
        ).query.stands_out
        for r in make_records()[:40]
    )
    engine.close()
    asked = each * len(kinds)
    # One in twenty is promised; three standard deviations of so many draws are let pass.
    assert sum(wrong.values()) / asked <= 0.05 + 3 * (0.05 * 0.95 / asked) ** 0.5, wrong
    assert own == 40  # and a record asked for by itself still stands out


def test_redamping_calibrates_again_if_the_model_is_given_and_else_drops_it(
    calibrated, copied, model, new_llama, chat_tokenizer, as_loaded
):
    notes = []

    class Heard(Silence):
        def note(self, text: str) -> None:
            notes.append(text)

    index = copied
    redamp_index(index, joint_damping=0.5, loaded=model, reporter=Heard())
    again = IndexReader.open(index).manifest.calibration
    assert len(again.null_best_z) == 64
    assert again != calibrated.manifest.calibration
    assert not any("dropped" in note for note in notes)
    redamp_index(index, joint_damping=0.7, reporter=Heard())
    assert IndexReader.open(index).manifest.calibration.null_best_z == ()
    assert any("calibration of confidence is dropped" in note for note in notes)
    other = as_loaded(new_llama(num_hidden_layers=1, seed=1), chat_tokenizer)
    with pytest.raises(IndexMismatch, match="weights"):
        redamp_index(index, joint_damping=0.9, loaded=other, reporter=Silence())


def test_a_redamped_index_has_the_calibration_of_one_built_so(built, model, copied):
    want = built(joint_damping=0.5).manifest.calibration
    redamp_index(copied, joint_damping=0.5, loaded=model, reporter=Silence())
    got = IndexReader.open(copied).manifest.calibration
    # The outside answers are the same ones; stored numbers were rounded once more (2^-11 of a
    # cosine, which is a tenth of the spread at most), and the sample of mixed words is another.
    assert got.null_quantiles["outside"] == pytest.approx(want.null_quantiles["outside"], rel=0.02)


def test_answers_that_the_model_cannot_read_are_no_reason_to_fail(build, new_llama, as_loaded):
    """A vocabulary of nothing but a few words, and a context shorter than most answers."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {word: number for number, word in enumerate(["<unknown>", *WORDS])}
    bare = Tokenizer(models.WordLevel(words, unk_token="<unknown>"))
    bare.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bare, unk_token="<unknown>")
    loaded = as_loaded(new_llama(len(words), num_hidden_layers=1), tokenizer)
    records = [{"id": str(n), "text": " ".join(WORDS[n % 8 :])} for n in range(12)]
    reader = build(records, loaded, null_queries=20)
    assert json.loads(reader.manifest.to_bytes())["calibration"]["null_best_z"]
