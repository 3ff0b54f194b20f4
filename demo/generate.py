"""Greedy answers of the demo's model, through its chat template, several questions at a time."""

from collections.abc import Sequence

import torch
from transformers import GenerationConfig

from indexer.progress import Advance
from influence.model import LoadedModel

MAX_NEW_TOKENS = 96
BATCH = 16


def generate_answers(
    loaded: LoadedModel, questions: Sequence[str], *, advance: Advance | None = None
) -> list[str]:
    """The model's most likely answer to each question, without its end-of-turn token.

    An answer that is not finished after `MAX_NEW_TOKENS` ends there.
    """
    answers: list[str] = []
    for start in range(0, len(questions), BATCH):
        part = questions[start : start + BATCH]
        answers += _answer(loaded, part)
        if advance is not None:
            advance(len(part))
    return answers


def _answer(loaded: LoadedModel, questions: Sequence[str]) -> list[str]:
    tokenizer = loaded.tokenizer
    prompts = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": question}], tokenize=False, add_generation_prompt=True
        )
        for question in questions
    ]
    batch = tokenizer(
        prompts,
        add_special_tokens=False,  # the template has written them
        padding=True,
        padding_side="left",  # new tokens continue the last one of each row
        return_tensors="pt",
    ).to(loaded.device)
    greedy = GenerationConfig(
        do_sample=False,
        max_new_tokens=MAX_NEW_TOKENS,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.no_grad(), loaded.autocast():
        output = loaded.model.generate(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            generation_config=greedy,
        )
    new = output[:, batch["input_ids"].shape[1] :]
    return [answer.strip() for answer in tokenizer.batch_decode(new, skip_special_tokens=True)]
