"""The page against a real server: its own process, a real engine, an index made for it."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from playwright.sync_api import Browser, expect
from transformers import LlamaConfig, LlamaForCausalLM

from indexer.build import build_index
from indexer.progress import Silence
from influence.manifest import IndexSettings
from influence.model import load_model

WHENCE = Path(sys.executable).parent / "whence"


def answer(number: int) -> str:
    return f"the river {number} is {37 * number} miles long and north of the gold city {number}"


@pytest.fixture(scope="module")
def index_dir(tmp_path_factory, chat_tokenizer) -> Path:
    """Thirty records about rivers and a random Llama that has read them."""
    folder = tmp_path_factory.mktemp("rivers")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(chat_tokenizer),
        hidden_size=24,
        intermediate_size=40,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        initializer_range=0.2,
    )
    LlamaForCausalLM(config).save_pretrained(folder / "model")
    chat_tokenizer.save_pretrained(folder / "model")
    records = [
        {
            "id": f"river/{number}",
            "title": f"River {number}",
            "owner": f"Country {number % 5}",
            "prompt": f"how long is river {number}",
            "response": answer(number),
        }
        for number in range(30)
    ]
    corpus = folder / "corpus.jsonl"
    corpus.write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    build_index(
        str(corpus),
        load_model(str(folder / "model"), device="cpu", dtype="float32"),
        folder / "index",
        IndexSettings(rank=8, dims=1024),
        reporter=Silence(),
    )
    return folder / "index"


@pytest.fixture(scope="module")
def server(index_dir) -> Iterator[tuple[subprocess.Popen[str], str]]:
    command = [WHENCE, "serve", index_dir, "--no-auth", "--port", "0", "--device", "cpu"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout
    with process:
        try:
            ready = process.stdout.readline()  # printed once the engine is warm
            assert "http://" in ready
            yield process, ready.split()[-1]
        finally:
            process.kill()


def test_a_record_is_found_then_the_server_dies_and_the_page_says_so(
    browser: Browser, server: tuple[subprocess.Popen[str], str]
):
    process, address = server
    context = browser.new_context()
    page = context.new_page()
    page.set_default_timeout(15_000)
    page.goto(address)
    expect(page.get_by_text("30 documents")).to_be_visible()
    page.get_by_label("Prompt").fill("how long is river 17")
    page.get_by_label("Response").fill(answer(17))
    page.get_by_role("button", name="Attribute").click()
    expect(page.locator(".message")).to_have_text("One passage stands out: “River 17”")
    expect(page.locator(".proponents .card").first).to_contain_text(answer(17))
    expect(page.get_by_role("region", name="Owners")).to_contain_text("Country 2")

    page.get_by_label("Response").fill("war and peace treaty")
    page.get_by_role("button", name="Attribute").click()
    expect(page.locator(".message")).to_contain_text("No indexed document stands out")

    process.send_signal(signal.SIGKILL)
    process.wait(timeout=10)
    page.get_by_role("button", name="Attribute").click()
    expect(page.get_by_role("alert")).to_contain_text("The server could not be reached")
    expect(page.get_by_role("button", name="Try again")).to_be_visible()
    context.close()
