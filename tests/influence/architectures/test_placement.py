"""Models larger than one device give the vectors of the same model on one."""

import json
import warnings

import pytest
import torch
from accelerate import cpu_offload
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from transformers import AutoModelForCausalLM

from indexer.build import build_index
from indexer.progress import Silence
from influence.encoder import GradientEncoder, as_task
from influence.errors import InvalidInput, ModelUnavailable
from influence.loss import OutputHead
from influence.model import load_model, prepare_model, weights_sha256
from influence.placement import OnOneDevice, is_sharded, is_spread, offloaded

# As accelerate would place a model that fits neither the device nor the memory.
WITH_DISK = {
    "model.embed_tokens": "cpu",
    "model.layers.0": "cpu",
    "model.layers.1": "disk",
    "model.norm": "cpu",
    "model.rotary_emb": "cpu",
    "lm_head": "cpu",
}
CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path, new_llama, chat_tokenizer):
    """A saved model whose head has a weight of its own."""
    new_llama(tie_word_embeddings=False).save_pretrained(tmp_path / "model")
    chat_tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def sequences(token_sequence):
    """Of several lengths, so that the batch is padded."""
    return [token_sequence(length, seed=length) for length in (9, 4, 17)]


@pytest.fixture
def short_sequences(token_sequence):
    """Likewise, for the models of `new_causal`."""
    return [token_sequence(n, seed=n, vocabulary=60) for n in (9, 4, 17)]


def _offloaded(folder, tokenizer, tmp_path, dtype="float32"):
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, device_map=WITH_DISK, offload_folder=tmp_path / "offload"
    )
    return _prepared(model, tokenizer, dtype)


def _prepared(model, tokenizer, dtype="float32"):
    return prepare_model(
        model,
        tokenizer,
        name="tiny",
        weights_sha256="",
        device=CPU,
        dtype=dtype,
        context_length=256,
    )


def _relative(got, want):
    return float((got - want).norm() / want.norm())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_model_with_a_block_on_disk_gives_the_vectors_of_the_whole_one(
    folder, chat_tokenizer, sequences, new_basis, tmp_path, dtype, caplog
):
    whole = load_model(folder, device="cpu", dtype=dtype)
    spread = _offloaded(folder, chat_tokenizer, tmp_path, dtype)
    assert any(name.startswith("model.layers.1.") for name in offloaded(spread.model))
    assert "found no room" in caplog.text
    before = {name: p.requires_grad for name, p in spread.model.named_parameters()}
    encoder = GradientEncoder(whole, new_basis(as_task(whole), sequences[0]))
    want = encoder.encode(sequences)
    reached = new_basis(as_task(spread), sequences[0])
    assert [b.layer for b in reached.layers] == [b.layer for b in encoder.basis.layers]
    assert reached.leaders == encoder.basis.leaders
    for _ in range(2):  # the second time the block is brought in again
        got = GradientEncoder(spread, encoder.basis).encode(sequences)
        # The whole logits round otherwise than the head in chunks; bfloat16 keeps 8 bits.
        tolerance = 1e-5 if dtype == "float32" else 3e-2
        assert _relative(got.vectors, want.vectors) < tolerance
        assert _relative(got.losses, want.losses) < tolerance
    assert offloaded(spread.model)
    assert {name: p.requires_grad for name, p in spread.model.named_parameters()} == before


def test_spreading_where_everything_fits_changes_nothing(folder, sequences, new_basis):
    whole, spread = (load_model(folder, device=device) for device in ("cpu", "spread"))
    assert spread.weights_sha256 == whole.weights_sha256
    encoder = GradientEncoder(whole, new_basis(as_task(whole), sequences[0]))
    got = GradientEncoder(spread, encoder.basis).encode(sequences).vectors
    assert _relative(got, encoder.encode(sequences).vectors) < 1e-5


def test_a_spread_model_has_no_output_head_of_its_own(folder, chat_tokenizer, tmp_path):
    spread = _offloaded(folder, chat_tokenizer, tmp_path)
    assert is_spread(spread.model)
    assert OutputHead.find(spread.model, dtype=torch.float32) is None
    whole = load_model(folder, device="cpu")
    assert not is_spread(whole.model)
    assert OutputHead.find(whole.model, dtype=torch.float32) is not None


def test_captured_tensors_are_brought_to_the_device_of_the_task():
    seen = []

    class Recorder:
        keeps_positions = True

        def on_input(self, layer, x):
            seen.append((layer, x.device.type))
            return "value"

        def on_gradient(self, layer, value, g):
            seen.append((value, g.device.type))

    receiver = OnOneDevice(Recorder(), torch.device("meta"))  # the only other one everywhere
    receiver.on_gradient("a", receiver.on_input("a", torch.ones(2)), torch.ones(2))
    assert seen == [("a", "meta"), ("value", "meta")]
    assert receiver.keeps_positions


def test_what_cannot_be_done_with_offloaded_weights_is_refused(
    folder, chat_tokenizer, sequences, new_basis, tmp_path
):
    spread = _offloaded(folder, chat_tokenizer, tmp_path)
    with pytest.raises(ModelUnavailable, match="Give the folder of the model"):
        weights_sha256("some/name", spread.model)
    basis = new_basis(as_task(load_model(folder, device="cpu")), sequences[0], ["norms"])
    with pytest.raises(InvalidInput, match="Leave norms out"):
        GradientEncoder(spread, basis).encode(sequences)


def test_experts_that_are_spread_are_refused_and_their_router_is_not(
    new_causal, chat_tokenizer, short_sequences, new_basis
):
    whole = _prepared(new_causal("mixtral"), chat_tokenizer)
    encoder = GradientEncoder(
        whole, new_basis(as_task(whole), short_sequences[0], ["*", "!*experts*"])
    )
    want = encoder.encode(short_sequences).vectors
    model = new_causal("mixtral")
    cpu_offload(model, execution_device=CPU)
    spread = _prepared(model, chat_tokenizer)
    assert any(layer.name.endswith("gate") for layer in encoder.basis.layers)
    # The whole logits round otherwise than the head in chunks.
    got = GradientEncoder(spread, encoder.basis).encode(short_sequences).vectors
    assert _relative(got, want) < 1e-5
    with pytest.raises(InvalidInput, match="leave them out"):
        new_basis(as_task(spread), short_sequences[0])


def test_adapters_are_not_spread(folder, tmp_path):
    adapters = tmp_path / "adapters"
    adapters.mkdir()
    config = {"base_model_name_or_path": str(folder)}
    (adapters / "adapter_config.json").write_text(json.dumps(config))
    (adapters / "adapter_model.safetensors").touch()
    with pytest.raises(InvalidInput, match="Merge them"):
        load_model(adapters, device="spread")


def _shard(loaded, rendezvous, rank):
    """In a process of its own: its part of the model, a block at a time."""
    distributed.init_process_group(
        "gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=2
    )
    mesh = init_device_mesh("cpu", (2,))
    for layer in loaded.model.model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(loaded.model, mesh=mesh)


@pytest.mark.parametrize("name", ["llama", "mixtral"])
def test_a_model_sharded_over_two_processes_gives_the_vectors_of_the_whole_one(
    new_causal, name, chat_tokenizer, short_sequences, new_basis, start_in_child, tmp_path
):
    begin, end = start_in_child
    sequences = short_sequences
    loaded = _prepared(new_causal(name), chat_tokenizer)
    encoder = GradientEncoder(loaded, new_basis(as_task(loaded), sequences[0]))
    want = encoder.encode(sequences)

    def work(rank):
        warnings.simplefilter("default")  # torch's own, of what it is going to rename
        _shard(loaded, tmp_path / "rendezvous", rank)
        held = sum(p.to_local().numel() for p in loaded.model.parameters())
        sharded = GradientEncoder(loaded, encoder.basis)
        reached = new_basis(sharded.task, sequences[0])
        encoded = [sharded.encode(sequences)]
        ids = torch.arange(8)[None]
        with torch.no_grad():  # leaves the root's weights gathered
            loaded.model(input_ids=ids)
        encoded.append(sharded.encode(sequences))
        untouched = all(p.grad is None for p in loaded.model.parameters())
        # Given back as it came: it can be trained, and every parameter gets its gradient.
        loaded.model(input_ids=ids, labels=ids).loss.backward()
        torch.save(
            {
                "held": held,
                "head": sharded.loss.head,
                "leaders": reached.leaders,
                "vectors": [e.vectors for e in encoded],
                "losses": [e.losses for e in encoded],
                "untouched": untouched,
                "trained": all(p.grad is not None for p in loaded.model.parameters()),
            },
            tmp_path / f"{rank}.pt",
        )
        distributed.barrier()

    children = [begin(lambda r=r: work(r)) for r in range(2)]
    assert [end(*child) for child in children] == [(0, "")] * 2
    results = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    whole = sum(p.numel() for p in loaded.model.parameters())
    assert sum(result["held"] for result in results) == whole
    for result in results:
        assert result["held"] < 0.6 * whole
        assert result["head"] is None
        assert result["leaders"] == encoder.basis.leaders
        assert result["untouched"]
        assert result["trained"]
        for vectors, losses in zip(result["vectors"], result["losses"], strict=True):
            # The whole logits round otherwise than the head in chunks.
            assert _relative(vectors, want.vectors) < 1e-5
            assert _relative(losses, want.losses) < 1e-5


def test_an_index_of_a_sharded_model_is_refused(folder, start_in_child, small_settings, tmp_path):
    begin, end = start_in_child
    loaded = load_model(folder, device="cpu")

    def work(rank):
        _shard(loaded, tmp_path / "rendezvous", rank)
        assert is_sharded(loaded.model)
        build_index("corpus", loaded, tmp_path / "index", small_settings(), reporter=Silence())

    children = [begin(lambda r=r: work(r)) for r in range(2)]
    for code, said in [end(*child) for child in children]:
        assert code == 3
        assert said.startswith("InvalidInput: ")
        assert "--device spread" in said
    assert not (tmp_path / "index").exists()
