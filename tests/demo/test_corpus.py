import json
from collections import Counter

import pytest

from demo.corpus import DOCUMENTS, build_corpus, choose_records
from demo.factbook import SOURCE as FACTBOOK
from demo.speeches import SOURCE as SPEECHES
from indexer.corpus import read_corpus


@pytest.fixture(scope="module")
def chosen():
    return choose_records(seed=0, documents=DOCUMENTS)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        build_corpus(tmp_path / name, seed=seed)
    a, b, c = ((tmp_path / name).read_bytes() for name in "abc")
    assert a == b
    assert a != c


def test_the_written_file_is_a_corpus_with_owners_and_licence(tmp_path, chosen):
    build_corpus(tmp_path / "corpus.jsonl")
    documents = list(read_corpus(tmp_path / "corpus.jsonl"))
    assert [document.id for document in documents] == [record.id for record in chosen]
    for document, record in zip(documents, chosen, strict=True):
        assert [message.role for message in document.messages] == ["user", "assistant"]
        assert [message.content for message in document.messages] == [
            record.question,
            record.answer,
        ]
        assert (document.owner, document.title) == (record.owner, record.title)
        assert document.licence == "US government work"


def test_no_id_question_or_answer_occurs_twice(chosen):
    assert len(chosen) == DOCUMENTS
    for column in ("id", "question", "answer"):
        assert len({getattr(record, column) for record in chosen}) == DOCUMENTS


def test_three_fifths_are_sections_of_countries_and_the_rest_of_presidents(chosen):
    sources = Counter(record.source for record in chosen)
    assert sources[FACTBOOK] == round(0.6 * DOCUMENTS)
    assert sources[SPEECHES] == DOCUMENTS - sources[FACTBOOK]
    owners = {
        source: {record.owner for record in chosen if record.source == source} for source in sources
    }
    assert len(owners[FACTBOOK]) >= 40
    assert len(owners[SPEECHES]) >= 25
    assert {"factbook-canada-population", "factbook-egypt-population"} <= {r.id for r in chosen}


def test_texts_read_well(chosen):
    for record in chosen:
        assert record.question.endswith("?")
        assert record.answer.endswith((".", '."'))
        assert record.answer == record.answer.strip()
        assert "  " not in record.answer
        assert not any(mark in record.answer for mark in ("<", ">", "&", "\n", "note:", "..."))
        assert 48 <= len(record.answer) < 420
        if record.source == FACTBOOK:
            assert record.owner in record.question
            assert record.owner in record.answer


def test_speeches_have_their_address(tmp_path, chosen):
    lines = [record.as_json() for record in chosen if record.source == SPEECHES]
    assert all(line["url"].startswith("https://www.presidency.ucsb.edu/") for line in lines)
    assert json.dumps(lines)
