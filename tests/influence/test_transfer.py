"""An index at a URL is the index in the folder: real S3 protocol, memory, and files."""

import logging
import os
import shutil
import socket
import threading
from pathlib import Path

import fsspec
import pytest
from typer.testing import CliRunner

from cli.main import app
from influence.errors import IndexCorrupt, IndexUnavailable, StorageUnreachable
from influence.remote import Remote
from influence.store import IndexReader
from influence.transfer import default_cache_dir, local_index, pull, push, verify_remote

# The client of S3 and the server for tests talk of what is theirs alone.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:(botocore|moto|s3fs|aiobotocore).*"),
    pytest.mark.timeout(120),
]


@pytest.fixture(scope="session")
def s3_server():
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(s3_server, monkeypatch):
    """A bucket on a real server; the settings are those that any S3 client reads."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    files = fsspec.filesystem("s3", skip_instance_cache=False)
    if files.exists("bucket"):
        files.rm("bucket", recursive=True)
    files.mkdir("bucket")
    return "s3://bucket/index"


@pytest.fixture(params=["memory", "file", "s3"])
def url(request, tmp_path):
    if request.param == "s3":
        return request.getfixturevalue("s3")
    if request.param == "memory":
        fsspec.filesystem("memory").rm("/", recursive=True)
        return "memory://store/index"
    return f"file://{tmp_path}/remote/index"


@pytest.fixture
def index(build, new_llama, tokenizer, as_loaded) -> IndexReader:
    records = [{"id": f"d{i}", "text": f"king {i} of the river", "owner": "o"} for i in range(20)]
    return build(records, as_loaded(new_llama(num_hidden_layers=1), tokenizer), rank=4, dims=32)


def _files(url: str, reader: IndexReader):
    files, root = fsspec.core.url_to_fs(url)
    return files, f"{root}/versions/{reader.version}"


def _published(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    }


def test_what_was_pushed_is_pulled_to_the_byte(index, url, tmp_path):
    assert push(index.index_dir, url) == index.version
    assert pull(url, tmp_path / "out", tmp_path / "objects") == index.version
    assert _published(tmp_path / "out") == _published(index.index_dir)
    IndexReader.open(tmp_path / "out").verify()
    assert verify_remote(url) == (index.version, len(index.manifest.files))


def test_versions_share_their_files_in_the_cache(index, url, tmp_path, monkeypatch):
    from indexer.progress import Silence
    from indexer.redamp import redamp_index

    push(index.index_dir, url)
    first = local_index(url, tmp_path)
    old = IndexReader.open(first)
    redamp_index(index.index_dir, damping=None, joint_damping=0.3, reporter=Silence())
    uploaded = []
    upload = Remote.upload
    monkeypatch.setattr(
        Remote,
        "upload",
        lambda self, name, source: uploaded.append(name) or upload(self, name, source),
    )
    new_version = push(index.index_dir, url)
    assert new_version != index.version
    if not url.startswith("file"):  # there a copy is an upload
        assert not any("/passages/" in name or "/documents/" in name for name in uploaded)
    assert local_index(url, tmp_path) == first
    new = IndexReader.open(first)
    assert new.version == new_version
    shared = [name for name in new.manifest.files if name.startswith(("passages", "documents"))]
    assert shared
    for name in shared:
        assert (new.directory / name).samefile(old.directory / name)
    old.verify()  # what a reader has open stays
    objects = list((tmp_path / "objects").iterdir())
    contents = {e.sha256 for r in (old, new) for e in r.manifest.files.values()}
    assert {path.name for path in objects} == contents


def test_a_second_pull_downloads_nothing_but_the_manifest(index, url, tmp_path, monkeypatch):
    push(index.index_dir, url)
    local_index(url, tmp_path)
    monkeypatch.setattr(Remote, "fetch", None)
    local_index(url, tmp_path)


def test_a_damaged_cache_is_filled_again(index, url, tmp_path):
    push(index.index_dir, url)
    folder = local_index(url, tmp_path)
    name = "vectors/00000.npy"
    path = folder / "versions" / index.version / name
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert local_index(url, tmp_path) == folder
    assert path.read_bytes() == content


@pytest.mark.parametrize("damage", ["truncated", "altered", "missing"])
@pytest.mark.parametrize("name", ["vectors/00000.npy", "manifest.json"])
def test_a_damaged_object_is_refused_by_its_name(index, url, tmp_path, name, damage):
    push(index.index_dir, url)
    files, folder = _files(url, index)
    content = files.cat_file(f"{folder}/{name}")
    if damage == "missing":
        files.rm_file(f"{folder}/{name}")
    else:
        spoilt = content[:-9] if damage == "truncated" else content[:-9] + b"XXXXXXXXX"
        files.pipe_file(f"{folder}/{name}", spoilt)
    with pytest.raises(IndexCorrupt, match=name):
        pull(url, tmp_path / "out", tmp_path / "objects")
    with pytest.raises(
        IndexUnavailable, match="no file CURRENT"
    ):  # nothing half-pulled is an index
        IndexReader.open(tmp_path / "out")
    assert not list(tmp_path.rglob("*.tmp"))
    with pytest.raises(IndexCorrupt, match=name):
        verify_remote(url)
    push(index.index_dir, url)  # as the message says
    assert pull(url, tmp_path / "out", tmp_path / "objects") == index.version


def test_a_push_that_breaks_off_leaves_the_old_version_and_is_continued(index, url, monkeypatch):
    from indexer.progress import Silence
    from indexer.redamp import redamp_index

    push(index.index_dir, url)
    redamp_index(index.index_dir, damping=None, joint_damping=0.3, reporter=Silence())
    upload = Remote.upload

    def breaking(self, name, source):
        if name.endswith("manifest.json"):
            raise KeyboardInterrupt
        upload(self, name, source)

    monkeypatch.setattr(Remote, "upload", breaking)
    with pytest.raises(KeyboardInterrupt):
        push(index.index_dir, url)
    assert Remote(url).current() == index.version
    verify_remote(url)
    monkeypatch.setattr(Remote, "upload", upload)
    assert push(index.index_dir, url) == Remote(url).current() != index.version
    verify_remote(url)


def test_a_damaged_index_is_not_pushed(index, url):
    path = index.directory / "vectors/00000.npy"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(IndexCorrupt, match=r"vectors/00000\.npy"):
        push(index.index_dir, url)
    with pytest.raises(IndexUnavailable, match="There is no index at"):
        Remote(url).current()


def test_two_processes_may_pull_at_once(index, tmp_path):
    url = f"file://{tmp_path}/remote/index"
    push(index.index_dir, url)
    errors = []

    def work() -> None:
        try:
            local_index(url, tmp_path / "cache")
        except BaseException as error:  # noqa: BLE001 - shown below
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    IndexReader.open(local_index(url, tmp_path / "cache")).verify()


def test_a_manifest_that_names_a_file_elsewhere_is_not_trusted(index, tmp_path):
    import hashlib
    import json

    manifest = json.loads((index.directory / "manifest.json").read_bytes())
    entry = next(iter(manifest["files"].values()))
    manifest["files"]["../../../../evil"] = entry
    content = json.dumps(manifest).encode()
    version = f"000001-{hashlib.sha256(content).hexdigest()[:12]}"
    folder = tmp_path / "remote/versions" / version
    shutil.copytree(index.directory, folder)
    (folder / "manifest.json").write_bytes(content)
    (tmp_path / "remote/CURRENT").write_text(version)
    with pytest.raises(IndexCorrupt, match=r"evil.*Do not trust"):
        pull(f"file://{tmp_path}/remote", tmp_path / "a/b/c/out", tmp_path / "objects")
    assert not list(tmp_path.rglob("evil"))


def test_a_folder_is_an_index_at_its_file_url(index, tmp_path):
    folder = local_index(f"file://{index.index_dir}", tmp_path / "cache")
    assert _published(folder) == _published(index.index_dir)
    assert folder.name == index.index_dir.name  # by which answers call it
    assert local_index(index.index_dir) == index.index_dir


@pytest.mark.parametrize(
    "url", ["nosuchprotocol://bucket/index", "s3://bucket/index", "http://127.0.0.1:{port}/index"]
)
def test_a_url_that_cannot_be_reached_is_named(url, tmp_path, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for variable in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    fsspec.config.conf["s3"] = {"config_kwargs": {"connect_timeout": 1}}
    monkeypatch.setattr("s3fs.S3FileSystem.retries", 1)
    url = url.format(port=port)
    try:
        with pytest.raises(StorageUnreachable, match=url):
            local_index(url, tmp_path)
    finally:
        del fsspec.config.conf["s3"]


def test_the_command_line_takes_urls(index, s3, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))

    def run(*arguments: str):
        return CliRunner().invoke(app, list(arguments), catch_exceptions=False)

    assert run("push", str(index.index_dir), s3).stdout.split() == [index.version]
    assert index.version in run("info", s3).stdout
    assert run("verify", s3).stdout.startswith(
        f"{index.version}: {len(index.manifest.files)} files"
    )
    assert run("pull", s3, str(tmp_path / "out")).stdout.split() == [index.version]
    assert _published(tmp_path / "out") == _published(index.index_dir)
    assert run("push", str(index.index_dir), "not-a-url").exit_code == 2


def test_the_cache_is_where_the_user_keeps_caches(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache_dir() == tmp_path / "whence"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_cache_dir() == Path.home() / ".cache" / "whence"
