"""Tiny models and tokenizers, built in the test: no download, no GPU."""

import os

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM
from transformers import PreTrainedTokenizerFast

from influence.model import LoadedModel, prepare_model, state_sha256

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WORDS = (
    "the a of and to in is was king queen river mountain city ship gold silver bread wine north "
    "south east west who what where when population capital area miles people war peace treaty"
)


def make_tokenizer(texts: list[str] | None = None, *, chat: bool = False, vocabulary: int = 400):
    """A byte-level BPE tokenizer trained on a few words."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts or [WORDS, WORDS.upper()], trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|endoftext|>", pad_token="<|endoftext|>"
    )
    if chat:
        fast.chat_template = CHAT_TEMPLATE
    return fast


def make_llama(vocabulary: int = 400, *, seed: int = 0, **settings) -> LlamaForCausalLM:
    """A random Llama of a few thousand parameters."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        **{
            "vocab_size": vocabulary,
            "hidden_size": 24,
            "intermediate_size": 40,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 256,
            "tie_word_embeddings": True,
            # The default of .02 leaves so small a network nearly linear and its gradients tiny.
            "initializer_range": 0.2,
            **settings,
        }
    )
    return LlamaForCausalLM(config)


def make_gpt2(vocabulary: int = 400, *, seed: int = 0) -> GPT2LMHeadModel:
    """A random GPT-2 of a few thousand parameters, with dropout that must be switched off."""
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=vocabulary,
        n_embd=24,
        n_layer=2,
        n_head=4,
        n_positions=256,
        initializer_range=0.2,
    )
    return GPT2LMHeadModel(config)


def load(model, tokenizer, *, dtype: str = "float32", name: str = "tiny") -> LoadedModel:
    """As `influence.model.load_model` would give it."""
    return prepare_model(
        model,
        tokenizer,
        name=name,
        weights_sha256=state_sha256(model),
        device=torch.device("cpu"),
        dtype=dtype,
        context_length=256,
    )


@pytest.fixture(scope="session")
def tokenizer():
    return make_tokenizer()


@pytest.fixture(scope="session")
def chat_tokenizer():
    return make_tokenizer(chat=True)


@pytest.fixture(params=["llama", "gpt2"])
def loaded(request, tokenizer) -> LoadedModel:
    """A tiny Llama and a tiny GPT-2."""
    make = {"llama": make_llama, "gpt2": make_gpt2}[request.param]
    return load(make(), tokenizer)
