"""What the corpus of restated facts promises, read from the corpus itself."""

import numpy as np
import pytest

from evaluation.restated import STATEMENTS, restate_facts

FACTS = restate_facts(240, 80, seed=0)


def test_every_fact_stands_in_three_documents_of_three_wordings():
    texts = [document.text for document in FACTS.documents]
    assert len(set(texts)) == 240
    names = [document.title for document in FACTS.documents]
    assert all(names.count(name) == STATEMENTS for name in names)
    for name in names:
        responses = {d.messages[1].content for d in FACTS.documents if d.title == name}
        assert len(responses) == 1


def test_a_question_has_its_answer_in_its_documents_and_its_wording_in_none():
    for (prompt, response), places in zip(FACTS.questions, FACTS.stating, strict=True):
        about = [i for i, d in enumerate(FACTS.documents) if d.title in prompt.split()]
        assert tuple(about) == places
        for place in places:
            stated, answer = FACTS.documents[place].messages
            assert answer.content == response
            assert stated.content != prompt
    assert (FACTS.answers == [places[0] for places in FACTS.stating]).all()


def test_documents_of_one_fact_lie_apart():
    gaps = [np.diff(places).min() for places in FACTS.stating]
    assert np.mean(gaps) > 10


def test_only_the_response_carries_loss_and_every_word_is_known():
    tokenizer = FACTS.tokenizer()
    for sequence in [p.tokens for p in FACTS.passages(tokenizer)] + FACTS.queries(tokenizer):
        wanted = [
            i for i, target in zip(sequence.input_ids, sequence.targets, strict=True) if target
        ]
        assert tokenizer.decode(wanted).split()[:2] == ["it", "is"]
        assert len(wanted) == 3
        assert tokenizer.unk_token_id not in sequence.input_ids


def test_the_seed_decides_the_corpus():
    assert FACTS.documents == restate_facts(240, 80, seed=0).documents
    assert FACTS.documents != restate_facts(240, 80, seed=1).documents


@pytest.mark.parametrize(("documents", "questions"), [(241, 80), (723, 80), (0, 0), (30, 11)])
def test_what_cannot_be_planted_is_refused(documents, questions):
    with pytest.raises(ValueError, match="240 people"):
        restate_facts(documents, questions, seed=0)
