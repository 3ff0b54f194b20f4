import pytest
import torch

from demo import generate
from demo.generate import generate_answers
from influence.model import load_model


@pytest.fixture
def loaded(chat_model):
    return load_model(chat_model, device="cpu")


def slowly(loaded, question: str) -> str:
    """One token after another, the whole forward pass each time."""
    tokenizer = loaded.tokenizer
    chat = [{"role": "user", "content": question}]
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    new: list[int] = []
    while len(new) < generate.MAX_NEW_TOKENS:
        with torch.no_grad():
            token = int(loaded.model(torch.tensor([ids + new])).logits[0, -1].argmax())
        if token == tokenizer.eos_token_id:
            break
        new.append(token)
    return tokenizer.decode(new, skip_special_tokens=True).strip()


def test_answers_of_a_batch_are_those_of_each_question_alone(loaded, records, monkeypatch):
    monkeypatch.setattr(generate, "MAX_NEW_TOKENS", 12)
    monkeypatch.setattr(generate, "BATCH", 3)
    questions = ["Who?", *(record.question for record in records[:4])]  # several lengths
    done = []
    answers = generate_answers(loaded, questions, advance=done.append)
    assert answers == [slowly(loaded, question) for question in questions]
    assert done == [3, 2]
