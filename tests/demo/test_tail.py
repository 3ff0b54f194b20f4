import pytest
import torch
from torch.nn.utils.rnn import pad_sequence
from torch.testing import assert_close

from demo.tail import Tail, hidden_below
from indexer.corpus import read_corpus
from influence.encoder import Batch, LanguageModelLoss
from influence.model import load_model
from influence.tokens import document_passages

BLOCKS = 2


@pytest.fixture
def loaded(chat_model):
    return load_model(chat_model, device="cpu")


@pytest.fixture
def passages(loaded, corpus):
    return [
        passage
        for document in read_corpus(corpus)
        for passage in document_passages(document, loaded.tokenizer, max_length=128)
    ]


def tail_losses(loaded, passages):
    hidden = hidden_below(loaded, passages, BLOCKS, bf16=False, advance=lambda _: None)
    tail = Tail(loaded, BLOCKS, bf16=False)
    batch = Batch.of([passage.tokens for passage in passages], loaded.device)
    loss = tail(pad_sequence(hidden, batch_first=True), batch.rows, batch.columns, batch.targets)
    return tail, batch, loss["loss"]


def test_the_loss_of_the_tail_is_the_loss_that_is_indexed(loaded, passages):
    _, batch, loss = tail_losses(loaded, passages)
    with torch.no_grad():
        whole = LanguageModelLoss(loaded).token_losses(batch).mean()
    assert_close(loss, whole)


def test_the_gradients_of_the_tail_are_those_of_the_whole_model(loaded, passages):
    tail, batch, loss = tail_losses(loaded, passages)
    trained = {name: p for name, p in loaded.model.named_parameters() if p.requires_grad}
    got = torch.autograd.grad(loss, list(trained.values()))

    logits = loaded.model(input_ids=batch.input_ids).logits[batch.rows, batch.columns]
    whole = torch.nn.functional.cross_entropy(logits, batch.targets)
    expected = torch.autograd.grad(whole, list(trained.values()))
    for name, mine, theirs in zip(trained, got, expected, strict=True):
        assert_close(mine, theirs, msg=lambda m, name=name: f"{name}: {m}")
    assert tail.losses[0][1] == len(batch.targets)


def test_only_linear_layers_of_the_last_blocks_learn(loaded):
    Tail(loaded, BLOCKS, bf16=False)
    trained = {name for name, p in loaded.model.named_parameters() if p.requires_grad}
    layers = {name.split(".")[2] for name in trained}
    assert layers == {"2", "3"}
    assert all(name.endswith("_proj.weight") for name in trained)
    assert len(trained) == 7 * BLOCKS


@pytest.mark.parametrize("blocks", [0, 4, 5])
def test_some_blocks_must_stay_below_the_tail(loaded, blocks):
    with pytest.raises(ValueError, match=f"{blocks} blocks .* a model of 4"):
        Tail(loaded, blocks, bf16=False)
