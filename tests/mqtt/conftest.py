"""Brokers for these tests; all of them are skipped where there is no Mosquitto."""

import asyncio
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent.parent / "streamer"))

import mosquitto

from streamer.nodes.mqtt.client import Client
from streamer.settings import MqttSettings


def pytest_collection_modifyitems(items):
    if mosquitto.PROGRAM is None:
        here = Path(__file__).parent
        for item in items:
            if item.path.is_relative_to(here):
                item.add_marker(pytest.mark.skip(reason="needs mosquitto (Debian: apt-get install mosquitto)"))


@pytest.fixture
def make_broker(tmp_path):
    """`make_broker(...)`: a running broker; arguments as for `mosquitto.Broker`."""
    made = []

    def start(*lines, **how):
        broker = mosquitto.Broker(tmp_path / f"broker{len(made)}", *lines, **how)
        made.append(broker)
        return broker.start()

    yield start
    for broker in made:
        broker.stop()


@pytest.fixture
def broker(make_broker):
    return make_broker()


@pytest.fixture
async def make_client():
    """`await make_client(broker, name, **settings)`: a started client, stopped at the end."""
    made = []

    async def start(broker, name, *, will=None, clean=False, connected=True, **settings):
        how = {"keepalive": 4, "host": "127.0.0.1", "port": getattr(broker, "port", broker)} | settings
        client = Client(MqttSettings(**how), client_id=name, will=will, clean=clean)
        made.append(client)
        await client.start()
        if connected:
            async with asyncio.timeout(10):
                await client.wait_connected()
        return client

    yield start
    for client in made:
        await client.stop(patience=0.5)


@pytest.fixture
async def heartbeat():
    """Fail the test when something held the event loop."""
    gaps = []

    async def beat():
        while True:
            before = time.perf_counter()
            await asyncio.sleep(0.005)
            gaps.append(time.perf_counter() - before)

    task = asyncio.create_task(beat(), name="heartbeat")
    yield gaps
    task.cancel()
    assert max(gaps, default=0.0) < 0.5, f"the loop was held for {max(gaps):.3f} s"
