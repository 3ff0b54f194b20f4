"""The survey against counting by hand."""

import csv
import json
from io import StringIO

import pytest
from rich.console import Console
from scipy.stats import chi2
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from indexer.progress import Reporter, Silence
from indexer.survey import LeftOut, survey_corpus
from influence.errors import CorpusError
from influence.tokens import document_passages

REFUSES = "{{ raise_exception('No chats here.') }}"


def build_tokenizer(*, bos=True, template=None):
    """One token a word."""
    words = {f"w{i}": i + 2 for i in range(50)}
    backend = Tokenizer(models.WordLevel({"<s>": 0, "?": 1} | words, unk_token="?"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"\s+"), "removed")
    if bos:
        backend.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", 0)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", unk_token="?", chat_template=template
    )


TOKENIZER = build_tokenizer()
OPTIONS = {
    "max_length": 4,
    "fit_passages": 5,
    "shard_passages": 16,
    "seed": 0,
    "reporter": Silence(),
}


def survey(path, tokenizer=TOKENIZER, **options):
    return survey_corpus(path, tokenizer, **(OPTIONS | options))


def text(words):
    return " ".join(f"w{i % 50}" for i in range(words))


@pytest.fixture
def corpus(write_jsonl):
    return write_jsonl([{"id": f"d{n}", "text": text(n)} for n in range(1, 31)])


def test_counts_are_those_of_the_passages(corpus):
    found = survey(corpus)
    assert found.documents == 30
    # A document of n words and <s>: n predicted tokens, three of them a passage.
    assert found.target_tokens == sum(range(1, 31))
    assert found.passages == sum(-(-n // 3) for n in range(1, 31))
    assert found.tokens == found.target_tokens + found.passages
    assert found.skipped == found.without_target == LeftOut(0, ())


def test_the_fingerprint_is_of_the_documents_not_of_their_file(tmp_path, write_jsonl):
    records = [{"id": "a", "text": "w1 w2", "title": "T"}, {"id": "b", "text": "w3", "n": "1"}]
    reference = survey(write_jsonl(records)).fingerprint
    assert survey(write_jsonl(records, "other.jsonl.gz")).fingerprint == reference
    spaced = tmp_path / "spaced.jsonl"
    turned = [dict(reversed(record.items())) for record in records]
    spaced.write_text("\n\n".join(json.dumps(record, indent=None) for record in turned))
    assert survey(spaced).fingerprint == reference
    with (tmp_path / "c.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, ["id", "text", "title", "n"])
        writer.writeheader()
        writer.writerows(records)
    assert survey(tmp_path / "c.csv").fingerprint == reference
    for change in ({"text": "w4"}, {"id": "c"}, {"title": "U"}, {"owner": "O"}, {"n": "2"}):
        changed = [records[0] | change, records[1]]
        assert survey(write_jsonl(changed)).fingerprint != reference
    assert survey(write_jsonl(records[::-1])).fingerprint != reference


def test_the_sample_is_that_of_its_seed(corpus):
    first = survey(corpus).sample
    assert len({passage.id for passage in first}) == 5
    assert survey(corpus).sample == first
    assert survey(corpus, seed=1).sample != first
    assert survey(corpus, fit_passages=3).sample == first[:3]
    everything = survey(corpus, fit_passages=10_000)
    assert len(everything.sample) == everything.passages
    assert survey(corpus, fit_passages=0).sample == []


def test_the_sample_does_not_depend_on_the_order(corpus, tmp_path):
    turned = tmp_path / "turned.jsonl"
    turned.write_text("\n".join(reversed(corpus.read_text().splitlines())))
    assert survey(turned).sample == survey(corpus).sample


def test_the_sample_is_uniform(write_jsonl):
    path = write_jsonl([{"id": f"d{n}", "text": "w1"} for n in range(20)])
    counts = dict.fromkeys((f"d{n}#0" for n in range(20)), 0)
    draws = 150
    for seed in range(draws):
        for passage in survey(path, seed=seed).sample:
            counts[passage.id] += 1
    expected = draws * 5 / 20
    statistic = sum((count - expected) ** 2 / expected for count in counts.values())
    # Drawn without replacement the spread is smaller than this bound assumes.
    assert statistic < chi2.ppf(0.999, 19)


def test_passages_of_the_sample_are_those_of_their_documents(write_jsonl):
    path = write_jsonl([{"id": "d", "text": text(20)}])
    found = survey(path, fit_passages=100)
    from indexer.corpus import read_corpus

    (document,) = read_corpus(path)
    expected = list(document_passages(document, TOKENIZER, max_length=4))
    assert sorted(found.sample, key=lambda p: p.number) == expected


def test_an_id_that_occurs_twice_is_named_with_both_places(tmp_path, write_jsonl):
    write_jsonl([{"id": "a", "text": "w1"}, {"id": "x", "text": "w1"}], "folder/1.jsonl")
    write_jsonl([{"id": "b", "text": "w1"}, {"id": "x", "text": "w2"}], "folder/2.jsonl")
    with pytest.raises(CorpusError) as caught:
        survey(tmp_path / "folder", fit_passages=100)
    message = str(caught.value)
    assert "'x' occurs twice: folder/1.jsonl, line 2 and folder/2.jsonl, line 2." in message


def test_two_ids_with_one_hash_are_no_duplicate(write_jsonl, monkeypatch):
    monkeypatch.setattr("indexer.survey._id_hash", lambda document_id: len(document_id))
    assert survey(write_jsonl([{"id": i, "text": "w1"} for i in "abc"])).documents == 3
    with pytest.raises(CorpusError, match="'b' occurs twice"):
        survey(write_jsonl([{"id": i, "text": "w1"} for i in "abcb"]))


def test_documents_without_a_target_are_left_out_and_named(write_jsonl):
    stream = StringIO()
    path = write_jsonl([{"id": "one", "text": "w1"}, {"id": "two", "text": "w1 w2"}])
    reporter = Reporter(Console(file=stream))
    found = survey(path, build_tokenizer(bos=False), reporter=reporter)
    assert (found.documents, found.passages, found.target_tokens) == (2, 1, 1)
    assert found.without_target.count == 1
    assert "corpus.jsonl, line 1: 'one' has no token to predict" in found.without_target.first[0]
    assert "1 documents left out: corpus.jsonl, line 1" in stream.getvalue()
    with pytest.raises(CorpusError, match=r"No document of .* has a token to predict"):
        survey(write_jsonl([{"text": "w1"}]), build_tokenizer(bos=False))


def test_bad_records_are_counted_and_the_first_named(tmp_path, write_jsonl):
    path = write_jsonl([{"text": "w1"}, *({"text": ""} for _ in range(7))], "folder/c.jsonl")
    (tmp_path / "folder/notes.md").write_text("x")
    with pytest.raises(CorpusError, match="line 2"):
        survey(path)
    stream = StringIO()
    reporter = Reporter(Console(file=stream))
    found = survey(tmp_path / "folder", skip_bad_records=True, reporter=reporter)
    assert found.documents == 1
    assert found.skipped.count == 7
    assert found.skipped.first[0] == "folder/c.jsonl, line 2: its text is empty"
    assert len(found.skipped.first) == 5
    assert "7 bad records skipped: folder/c.jsonl, line 2" in stream.getvalue()
    assert "1 files of no known kind passed over: notes.md" in stream.getvalue()


def test_a_chat_that_the_template_refuses_is_a_bad_record(write_jsonl):
    path = write_jsonl([{"text": "w1"}, {"prompt": "w1", "response": "w2"}])
    tokenizer = build_tokenizer(template=REFUSES)
    with pytest.raises(CorpusError, match=r"line 2: .*No chats here.*--skip-bad-records"):
        survey(path, tokenizer)
    found = survey(path, tokenizer, skip_bad_records=True)
    assert (found.documents, found.skipped.count) == (1, 1)
