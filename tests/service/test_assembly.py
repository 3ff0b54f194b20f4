"""Who writes the answers of a chat, by the settings."""

import asyncio

from service.assembly import assemble
from service.chat.local import LocalChat
from service.chat.upstream import UpstreamChat
from service.metrics import Metrics
from service.settings import Settings


def chat_of(tmp_path, **settings):
    async def find():
        return assemble(Settings(index_dir=tmp_path, **settings), Metrics()).chat

    return asyncio.run(find())


def test_the_attributed_model_answers_unless_another_server_shall(tmp_path):
    assert isinstance(chat_of(tmp_path), LocalChat)
    upstream = "http://127.0.0.1:9/v1"
    assert isinstance(chat_of(tmp_path, chat_upstream=upstream), UpstreamChat)
    assert chat_of(tmp_path, chat_at_once=0) is None


def test_a_replica_without_a_model_chats_only_with_another_server(tmp_path):
    split = {"queue": True, "redis_url": "redis://127.0.0.1:9/0"}
    assert chat_of(tmp_path, **split) is None
    assert isinstance(chat_of(tmp_path, **split, chat_upstream="http://h/v1"), UpstreamChat)
