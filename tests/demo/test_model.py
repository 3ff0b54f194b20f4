from importlib import metadata

import pytest

from demo.model import INSTALL, PACKAGE, find_gguf, prepare_model
from influence.errors import ModelUnavailable


def test_a_missing_package_is_named_with_the_command_that_installs_it(monkeypatch, tmp_path):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", missing)
    with pytest.raises(ModelUnavailable, match=INSTALL):
        prepare_model(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_package_without_the_file_is_said_to_be_broken(monkeypatch):
    class Empty:
        files = ()
        version = "9.9"

    monkeypatch.setattr(metadata, "distribution", lambda name: Empty())
    with pytest.raises(ModelUnavailable, match=rf"{PACKAGE} 9\.9 holds no \.gguf"):
        find_gguf()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the GGUF reader
def test_the_converted_model_says_what_the_gguf_says(tmp_path):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    gguf, _ = find_gguf()
    folder = prepare_model(tmp_path)
    written = (folder / "model.safetensors").stat().st_mtime_ns
    assert prepare_model(tmp_path) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == written

    question = [{"role": "user", "content": "What is the capital of France?"}]
    said = []
    for place in ({"gguf_file": gguf.name, "from": gguf.parent}, {"from": folder}):
        where = place.pop("from")
        tokenizer = AutoTokenizer.from_pretrained(where, **place)
        model = AutoModelForCausalLM.from_pretrained(where, dtype=torch.float32, **place)
        assert tokenizer.eos_token == tokenizer.pad_token == "<|im_end|>"
        assert model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()
        ids = tokenizer.apply_chat_template(
            question, add_generation_prompt=True, return_tensors="pt"
        )
        output = model.generate(**ids, do_sample=False, max_new_tokens=24)
        said.append((ids["input_ids"].tolist(), tokenizer.decode(output[0])))
    assert said[0] == said[1]
    assert "Paris" in said[0][1]
