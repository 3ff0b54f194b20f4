"""PEFT LoRA: gradients of the adapters, or of the model below through them."""

import pytest
import torch

from influence.errors import ModelUnavailable, UnknownLayers
from influence.layers import coverage, select_layers
from influence.model import load_model

peft = pytest.importorskip("peft")
# peft asks transformers by a name that is to go.
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")


def _with_lora(model, *, names=("q_proj", "v_proj", "down_proj"), **settings):
    config = peft.LoraConfig(
        r=2, lora_alpha=5, target_modules=list(names), lora_dropout=0.3, **settings
    )
    torch.manual_seed(3)
    adapted = peft.get_peft_model(model, config)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:  # zero until trained, and then A would have no gradient
            parameter.data.normal_(std=0.3)
    return adapted.eval()


@pytest.mark.parametrize("target", ["adapter", "base", "all"])
@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_lora(name, target, new_causal, as_task, new_sequences, against_autograd, language_loss):
    names = ("c_attn", "c_fc") if name == "gpt2" else ("q_proj", "v_proj", "down_proj")
    settings = {"fan_in_fan_out": True} if name == "gpt2" else {}
    model = _with_lora(new_causal(name), names=names, **settings)
    task = as_task(model)
    assert task.head is not None
    checked = against_autograd(task, new_sequences(), language_loss, target=target)
    assert checked.coverage.share_of_linear >= 0.99
    found = [layer.name for layer in checked.basis.layers]
    is_adapter = ["lora_" in name for name in found]
    assert {"adapter": all(is_adapter), "base": not any(is_adapter), "all": True}[target]
    base = 8 if name == "gpt2" else 14
    adapters = 2 * 2 * len(names)
    assert len(found) == {"adapter": adapters, "base": base, "all": adapters + base}[target]


def test_adapters_are_the_target_where_there_are_any(new_causal):
    plain = new_causal("llama")
    assert select_layers(plain, target="auto") == select_layers(plain, target="all")
    with pytest.raises(UnknownLayers, match="none of the 0"):
        select_layers(plain, target="adapter")
    model = _with_lora(plain)
    assert select_layers(model, target="auto") == select_layers(model, target="adapter")
    mlp = select_layers(model, ["*.mlp.*"], target="adapter")
    assert [layer.name.split(".")[-2] for layer in mlp] == ["lora_A", "lora_B"] * 2


def test_coverage_of_adapters_names_the_model_below_as_left_out(new_causal):
    model = _with_lora(new_causal("llama"))
    found = coverage(model, select_layers(model, target="adapter"), target="adapter")
    assert found.share_of_linear == 1.0
    assert found.share_of_all < 0.2
    assert any(name.endswith("q_proj.base_layer") for name in found.left_out)


@pytest.fixture
def folders(tmp_path, new_llama, chat_tokenizer):
    """A saved model, and adapters for it."""
    base, adapters = tmp_path / "base", tmp_path / "adapters"
    new_llama().save_pretrained(base)
    chat_tokenizer.save_pretrained(base)
    model = _with_lora(load_model(base, device="cpu").model)
    model.peft_config["default"].base_model_name_or_path = str(base)
    model.save_pretrained(adapters)
    return base, adapters, model


def test_a_folder_of_adapters_is_loaded_into_its_model(folders):
    base, adapters, model = folders
    loaded = load_model(adapters, device="cpu")
    ids = torch.arange(3, 9)[None]
    with torch.no_grad():
        torch.testing.assert_close(loaded.model(ids).logits, model(ids).logits)
    assert loaded.context_length == 256
    assert loaded.weights_sha256 != load_model(base, device="cpu").weights_sha256
    assert loaded.weights_sha256 == load_model(adapters, device="cpu").weights_sha256


def test_adapters_that_cannot_be_used_are_refused_with_a_reason(folders):
    base, adapters, _ = folders
    config = adapters / "adapter_config.json"
    config.write_text(config.read_text().replace(f'"{base}"', "null"))
    with pytest.raises(ModelUnavailable, match="does not name the model"):
        load_model(adapters, device="cpu")
    (adapters / "adapter_model.safetensors").unlink()
    with pytest.raises(ModelUnavailable, match=r"without adapter_model\.safetensors"):
        load_model(adapters, device="cpu")
