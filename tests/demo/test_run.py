import json
import subprocess
import sys
from pathlib import Path

from demo.run import _remembered
from demo.settings import FinetuneSettings, index_settings, trained_layers
from indexer.build import build_index
from indexer.progress import Silence
from influence.manifest import IndexSettings
from influence.model import load_model

ROOT = Path(__file__).resolve().parents[2]
TINY = IndexSettings.model_validate({"rank": 4, "dims": 64, "fit_passages": 8, "max_length": 128})


def test_looking_whether_the_demo_is_ready_loads_no_torch():
    program = "import sys, demo.run; print([n for n in ('torch', 'faiss') if n in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_a_demo_is_remembered_as_long_as_its_files_are_those(tmp_path, chat_model, corpus):
    index_dir = tmp_path / "demo"
    version = build_index(
        str(corpus), load_model(chat_model, device="cpu"), index_dir, TINY, reporter=Silence()
    )
    ready = tmp_path / "ready.json"
    assert _remembered(ready) is None
    described = {
        "model_dir": str(chat_model),
        "index_dir": str(index_dir),
        "version": version,
        "self_check": {"checks": []},
    }
    ready.write_text(json.dumps(described))
    demo = _remembered(ready)
    assert demo is not None
    assert (demo.model_dir, demo.index_dir) == (chat_model, index_dir)

    ready.write_text(json.dumps({**described, "version": "000009-another"}))
    assert _remembered(ready) is None
    ready.write_text(json.dumps({**described, "model_dir": str(tmp_path / "gone")}))
    assert _remembered(ready) is None
    ready.write_text(json.dumps({**described, "index_dir": str(tmp_path / "gone")}))
    assert _remembered(ready) is None


def test_the_index_covers_the_last_blocks(chat_model):
    settings = FinetuneSettings(blocks=2)
    assert trained_layers(chat_model, settings) == ("model.layers.2.*", "model.layers.3.*")
    assert index_settings(chat_model, settings).max_length == settings.max_length
