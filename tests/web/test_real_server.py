"""The page against a real server: its own process, a real engine, an index made for it."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from axe_playwright_python.sync_playwright import Axe
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
            "source": "Rivers",
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


@contextmanager
def serving(index_dir: Path, port: int = 0) -> Iterator[tuple[subprocess.Popen[str], str]]:
    command = [WHENCE, "serve", index_dir, "--no-auth", "--port", str(port), "--device", "cpu"]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={
            **os.environ,
            "WHENCE_CHAT_MAX_TOKENS": "24",
            "WHENCE_LEDGER_URL": str(index_dir.parent / "ledger.sqlite"),
        },
    )
    assert process.stdout
    with process:
        try:
            ready = process.stdout.readline()  # printed once the engine is warm
            assert "http://" in ready
            yield process, ready.split()[-1]
        finally:
            process.kill()


@pytest.mark.slow
def test_a_chat_streams_and_what_it_came_from_stands_beside_it_until_the_server_dies(
    browser: Browser, index_dir: Path
):
    context = browser.new_context()
    page = context.new_page()
    page.set_default_timeout(60_000)
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    with serving(index_dir) as (process, address):
        page.goto(address)
        expect(page.get_by_text("30 documents")).to_be_visible()
        page.get_by_label("Prompt").fill("how long is river 17")
        with page.expect_response("**/chat/completions") as streamed:
            page.keyboard.press("Enter")
        assert streamed.value.headers["content-type"].startswith("text/event-stream")
        turn = page.locator(".turn")
        expect(turn.locator(".tools")).to_be_visible()
        expect(turn.locator(".answer")).not_to_be_empty()
        expect(page.locator(".message")).to_be_visible()
        expect(turn.locator(".trace")).to_have_attribute("aria-pressed", "true")
        violations = Axe().run(page).response["violations"]
        assert [(v["id"], [n["target"] for n in v["nodes"]]) for v in violations] == []

        # The second question has the first one and its answer before it, the attribution as well.
        page.get_by_label("Prompt").fill("and river 18")
        with page.expect_request("**/chat/completions") as sent:
            page.keyboard.press("Enter")
        assert [one["role"] for one in sent.value.post_data_json["messages"]] == [
            "user",
            "assistant",
            "user",
        ]
        expect(page.locator(".turn .tools:visible")).to_have_count(2)

        page.get_by_role("button", name="Bring your own answer").click()
        page.get_by_label("Prompt").fill("how long is river 17")
        page.get_by_label("Response", exact=True).fill(answer(17))
        page.get_by_role("button", name="Attribute", exact=True).click()
        expect(page.locator(".message")).to_have_text("One passage stands out: “River 17”")
        card = page.locator(".proponents .card").first
        expect(card.locator(".text")).to_contain_text("miles long")
        expect(card.locator(".text mark").first).to_be_visible()
        expect(page.get_by_role("region", name="Owners")).to_contain_text("Country 2")
        thumb = card.get_by_role("button", name="It explains the answer")
        thumb.click()
        expect(card.locator(".said")).to_have_text("Noted, thank you.")
        expect(thumb).to_have_attribute("aria-pressed", "true")
        card.get_by_role("button", name="Open the document").click()
        drawer = page.get_by_role("dialog", name="River 17")
        expect(drawer.locator(".passage")).to_contain_text(answer(17))
        expect(drawer.locator(".passage mark").first).to_be_visible()
        page.keyboard.press("Escape")

        turn.last.get_by_role("button", name="Compare").click()
        page.get_by_label("Rather than").fill(answer(4))
        page.locator(".inline .primary").click()
        expect(page.locator(".scope")).to_contain_text("Why “the river 17 is")
        expect(page.locator(".card .title").first).to_have_text("River 17")
        expect(page.locator(".opponents .title").first).to_have_text("River 4")

        # It dies while it works: stopped first, so that it cannot be faster than the test.
        page.get_by_role("button", name="Ask the model").click()
        page.get_by_label("Prompt").fill("how long is river 3")
        with page.expect_request("**/chat/completions"):
            process.send_signal(signal.SIGSTOP)
            page.keyboard.press("Enter")
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=10)
        failed = page.get_by_role("alert")
        expect(failed).to_contain_text("The server could not be reached")
    with serving(index_dir, port=int(address.rpartition(":")[2])):
        failed.get_by_role("button", name="Try again").click()
        expect(turn.last.locator(".tools")).to_be_visible()
        expect(page.locator(".message")).to_be_visible()
    assert faults == []
    context.close()
