"""What the planted corpus promises, read from the corpus itself."""

from collections import Counter

import pytest

from evaluation.facts import plant_facts

FACTS = plant_facts(240, 80, seed=0)


def test_every_document_states_one_fact_about_one_person():
    names = [document.title for document in FACTS.documents]
    assert len(set(names)) == 240
    for document in FACTS.documents:
        assert document.text.split().count(document.title) == 1
        assert sum(name in document.text.split() for name in names) == 1


def test_just_one_document_states_the_answer_to_a_question():
    for (prompt, response), answer in zip(FACTS.questions, FACTS.answers, strict=True):
        words = prompt.split()
        about = [i for i, d in enumerate(FACTS.documents) if d.title in words]
        assert about == [answer]
        assert FACTS.documents[answer].text.split()[-1] == response


def test_a_question_is_worded_unlike_its_document():
    for (prompt, response), answer in zip(FACTS.questions, FACTS.answers, strict=True):
        words = FACTS.documents[answer].text.split()
        shared = set(words) & set((prompt + response).split())
        assert len(shared - {FACTS.documents[answer].title, "is", response}) <= 1


def test_a_quarter_of_the_documents_are_questions_and_nobody_asks_about_them():
    questions = [i for i, d in enumerate(FACTS.documents) if "?" in d.text.split()]
    assert len(questions) == 60
    assert not set(questions) & set(FACTS.answers.tolist())
    # Not in one block: a model meets them mixed.
    assert max(questions) > 200
    assert min(questions) < 40


def test_values_are_shared_so_that_there_are_other_proponents_and_opponents():
    values = Counter(document.text.split()[-1] for document in FACTS.documents)
    assert len(values) == 40
    assert sum(values[response] > 1 for _, response in FACTS.questions) >= 78


def test_a_word_is_a_token_and_the_answer_is_the_target():
    tokenizer = FACTS.tokenizer()
    passages = FACTS.passages(tokenizer)
    assert [p.document_id for p in passages] == [d.id for d in FACTS.documents]
    for passage, document in zip(passages, FACTS.documents, strict=True):
        assert len(passage.tokens) == len(document.text.split())
    for sequence, (prompt, response) in zip(FACTS.queries(tokenizer), FACTS.questions, strict=True):
        assert len(sequence) == len((prompt + response).split())
        assert [t for t, wanted in enumerate(sequence.targets) if wanted] == [len(sequence) - 1]
        assert tokenizer.unk_token_id not in sequence.input_ids


def test_the_seed_decides_the_corpus():
    assert FACTS.documents == plant_facts(240, 80, seed=0).documents
    assert FACTS.documents != plant_facts(240, 80, seed=1).documents


@pytest.mark.parametrize(("documents", "questions"), [(241, 80), (0, 0), (40, 31)])
def test_more_than_there_is_cannot_be_planted(documents, questions):
    with pytest.raises(ValueError, match="240 people"):
        plant_facts(documents, questions, seed=0)
