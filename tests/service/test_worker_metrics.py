"""What a worker tells Prometheus, from a worker that ran as a process of its own."""

import asyncio
import os
import signal
import socket
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families

from influence.errors import AddressUnavailable
from service.assembly import run_worker
from service.jobs import Terms
from service.metrics import Metrics
from service.queue import QueueAttributor
from service.schemas import AttributeRequest
from service.settings import load_settings

ASK = AttributeRequest(prompt="who?", response="the king", top_k=2)


def samples(text: str) -> dict[str, float]:
    return {
        sample.name: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.fixture
def free_port():
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


@pytest.fixture
def settings(tiny, redis_url, tmp_path, monkeypatch, free_port):
    monkeypatch.chdir(tmp_path)
    return load_settings(
        index_dir=tiny.index_dir,
        model=str(tiny.model_dir),
        redis_url=redis_url,
        device="cpu",
        metrics_port=free_port,
    )


def test_worker_and_replica_tell_how_many_jobs_there_are(settings, redis_url, start_in_child):
    start, end = start_in_child
    child, words = start(lambda: run_worker(settings))
    metrics = Metrics()

    async def told() -> dict[str, float]:
        url = f"http://127.0.0.1:{settings.metrics_port}/metrics"
        answer = await asyncio.to_thread(urllib.request.urlopen, url)
        with answer:
            return samples(answer.read().decode())

    async def until(condition):
        while not condition():
            await asyncio.sleep(0.05)

    async def scenario():
        terms = Terms(settings.request_timeout_s, settings.worker_dead_after_s)
        replica = QueueAttributor(redis_url, terms, queue_size=8, metrics=metrics)
        await replica.start()
        await replica.wait_loaded()
        await replica.attribute(ASK, request_id="first")
        worker = await told()
        assert worker["whence_ready"] == 1
        assert worker["whence_index_rows"] == (await replica.info()).index.passages
        assert worker["whence_batch_requests_count"] == 1
        while (await told())["whence_queue_jobs"] != 0:  # it looks every second
            await asyncio.sleep(0.1)
        os.kill(child, signal.SIGSTOP)
        asked = [
            asyncio.create_task(replica.attribute(ASK, request_id=str(number)))
            for number in range(3)
        ]

        def jobs():
            return samples(metrics.exposition().decode())["whence_queue_jobs"]

        await until(lambda: jobs() == 3)
        os.kill(child, signal.SIGCONT)
        await asyncio.gather(*asked)
        await until(lambda: jobs() == 0)
        await replica.close()

    asyncio.run(asyncio.wait_for(scenario(), 120))
    os.kill(child, signal.SIGTERM)
    assert end(child, words) == (0, "")


def test_a_port_that_is_taken_is_one_sentence(settings, free_port):
    with (
        socket.create_server(("127.0.0.1", free_port)),
        pytest.raises(AddressUnavailable, match="WHENCE_METRICS_PORT"),
    ):
        run_worker(settings)
