import json
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from influence.errors import InvalidInput, ModelUnavailable
from influence.model import (
    load_model,
    resolve_device,
    resolve_dtype,
    state_sha256,
    tokenizer_sha256,
)


@pytest.fixture
def folder(tmp_path, new_llama, chat_tokenizer):
    """A saved model as people have them."""
    new_llama().save_pretrained(tmp_path / "model")
    chat_tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_a_saved_model_is_loaded_as_it_was(folder, new_llama, chat_tokenizer):
    loaded = load_model(folder, device="cpu", dtype="float32")
    assert state_sha256(loaded.model) == state_sha256(new_llama())
    assert loaded.tokenizer_sha256 == tokenizer_sha256(chat_tokenizer)
    assert loaded.tokenizer.is_fast
    assert loaded.context_length == 256
    assert loaded.name == str(folder)
    assert not any(module.training for module in loaded.model.modules())


def test_the_fingerprint_is_that_of_the_weights(folder, tmp_path, new_llama):
    first = load_model(folder, device="cpu").weights_sha256
    assert load_model(folder, device="cpu").weights_sha256 == first
    changed = new_llama()
    changed.model.norm.weight.data[0] += 1e-6
    changed.save_pretrained(folder)
    assert load_model(folder, device="cpu").weights_sha256 != first


def test_a_half_precision_checkpoint_is_computed_in_float32(folder, new_llama):
    new_llama().to(torch.float16).save_pretrained(folder)
    loaded = load_model(folder, device="cpu", dtype="float32")
    assert {p.dtype for p in loaded.model.parameters()} == {torch.float32}


def test_bfloat16_concerns_the_products_and_leaves_the_residual_stream(folder):
    loaded = load_model(folder, device="cpu", dtype="bfloat16")
    dtypes = {name: p.dtype for name, p in loaded.model.named_parameters()}
    assert dtypes["model.layers.0.mlp.up_proj.weight"] == torch.bfloat16
    assert dtypes["model.embed_tokens.weight"] == torch.float32
    assert dtypes["model.norm.weight"] == torch.float32
    assert loaded.product_dtype == torch.bfloat16


def test_a_truncated_weight_file_is_named_in_the_error(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ModelUnavailable, match=str(folder)):
        load_model(folder, device="cpu")


def test_weights_in_pickle_alone_are_refused(folder, new_llama):
    (folder / "model.safetensors").unlink()
    torch.save(new_llama().state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(ModelUnavailable, match="safetensors"):
        load_model(folder, device="cpu")


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_folder_without_one_of_its_files_is_refused(folder, missing):
    (folder / missing).unlink()
    with pytest.raises(ModelUnavailable, match="Give a folder"):
        load_model(folder, device="cpu")


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ModelUnavailable, match="nowhere"):
        load_model(tmp_path / "nowhere", device="cpu")


def test_a_config_that_is_not_json_is_refused(folder):
    (folder / "config.json").write_text("{")
    with pytest.raises(ModelUnavailable, match="config"):
        load_model(folder, device="cpu")


def test_a_model_that_is_no_language_model_is_refused(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "vit"}))
    with pytest.raises(ModelUnavailable):
        load_model(folder, device="cpu")


def test_devices():
    assert resolve_device("cpu") == torch.device("cpu")
    assert resolve_device("auto").type in ("cpu", "cuda")
    with pytest.raises(InvalidInput, match="'gpu' is no device"):
        resolve_device("gpu")
    if not torch.cuda.is_available():
        with pytest.raises(InvalidInput, match="No CUDA"):
            resolve_device("cuda")


def test_dtypes():
    assert resolve_dtype("auto") == "float32"
    assert resolve_dtype("bfloat16") == "bfloat16"
    with pytest.raises(InvalidInput, match="'float16'"):
        resolve_dtype("float16")


def test_the_chat_template_is_part_of_the_tokenizer(new_tokenizer):
    plain, chat = new_tokenizer(), new_tokenizer(chat=True)
    assert tokenizer_sha256(plain) != tokenizer_sha256(chat)
    assert tokenizer_sha256(plain) == tokenizer_sha256(new_tokenizer())


def test_truncation_set_in_passing_is_no_part_of_the_tokenizer(new_tokenizer):
    tokenizer = new_tokenizer()
    before = tokenizer_sha256(tokenizer)
    tokenizer("a king and a queen", truncation=True, max_length=2, padding="max_length")
    assert tokenizer_sha256(tokenizer) == before


def _change_weights(folder, change):
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def test_a_checkpoint_that_lacks_a_weight_is_refused_and_not_filled_at_random(folder):
    _change_weights(folder, lambda t: t.pop("model.layers.1.mlp.up_proj.weight"))
    with pytest.raises(ModelUnavailable, match=r"model\.layers\.1\.mlp\.up_proj\.weight"):
        load_model(folder, device="cpu")


def test_quantised_weights_whose_library_is_missing_are_refused_by_its_name(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)  # also where it is installed
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelUnavailable, match="bitsandbytes"):
        load_model(folder, device="cpu")


def test_a_checkpoint_of_another_width_is_refused(folder):
    _change_weights(folder, lambda t: t.update({"model.norm.weight": torch.ones(5)}))
    with pytest.raises(ModelUnavailable, match=str(folder)):
        load_model(folder, device="cpu")


CODE = """
from pathlib import Path
from transformers import LlamaConfig, LlamaForCausalLM

Path(__file__).with_name("ran").touch()


class OwnConfig(LlamaConfig):
    model_type = "own"


class OwnForCausalLM(LlamaForCausalLM):
    config_class = OwnConfig
"""


def test_code_of_a_model_runs_only_where_that_model_is_named(folder, tmp_path, monkeypatch):
    modules = tmp_path / "modules"  # where transformers copies it to
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(modules))
    (folder / "modeling_own.py").write_text(CODE)
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "model_type": "own",
        "architectures": ["OwnForCausalLM"],
        "auto_map": {
            "AutoConfig": "modeling_own.OwnConfig",
            "AutoModelForCausalLM": "modeling_own.OwnForCausalLM",
        },
    }
    (folder / "config.json").write_text(json.dumps(config))

    with pytest.raises(ModelUnavailable):
        load_model(folder, device="cpu")
    with pytest.raises(InvalidInput, match=r"code of another is trusted.*Name "):
        load_model(folder, device="cpu", trust_remote_code="another")
    assert not list(modules.rglob("ran"))
    loaded = load_model(folder, device="cpu", trust_remote_code=str(folder))
    assert type(loaded.model).__name__ == "OwnForCausalLM"
    assert list(modules.rglob("ran"))
