"""A model that runs is steered by OSC, and tells of its levels and tokens: the shipped plugins in one graph with it."""

import asyncio
import socket
import sys
from pathlib import Path

import pytest

pytest.importorskip("pythonosc")
from pythonosc.osc_message import OscMessage
from pythonosc.osc_message_builder import OscMessageBuilder

sys.path.insert(0, str(Path(__file__).parent))
from desks import registry

from streamer import Graph, Session, run

GRAPH = """
bundle: {bundle}
session: {{mode: dream, seed: 3}}
nodes:
  clock: {{type: clock, realtime: true}}
  semantic: semantic
  coarse: coarse
  fine: fine
  decoder: decoder
  hours: {{type: scheduler, hours: {{daily: "00:00-24:00"}}}}
  desk:
    type: osc_in
    port: 0
    map: {{"/temperature/{{node}}": {{value: temperature, output: [0.5, 1.5], input: [0, 1]}}}}
  screen: {{type: osc_out, port: {port}, tokens: [semantic, coarse, fine]}}
edges:
  - clock -> semantic -> coarse -> fine -> decoder -> hours -> screen
  - semantic -> screen
  - coarse -> screen
  - fine -> screen
  - desk -> semantic, coarse, fine
"""


async def test_a_dream_is_steered_and_told(tiny_bundle):
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as screen:
        screen.bind(("127.0.0.1", 0))
        screen.settimeout(0)
        text = GRAPH.format(bundle=tiny_bundle, port=screen.getsockname()[1])
        with Graph.parse(text, registry=registry()) as graph:
            session = Session(graph)
            task = asyncio.create_task(run(graph, session))
            try:
                async with asyncio.timeout(30):
                    told = {}
                    while len(told) < 4 or "desk.port" not in session.metrics.gauges:
                        got = OscMessage(await loop.sock_recv(screen, 4096))
                        told[got.address] = got.params
                    builder = OscMessageBuilder("/temperature/coarse")
                    builder.add_arg(0.25)
                    to = ("127.0.0.1", int(session.metrics.gauges["desk.port"]))
                    await loop.sock_sendto(screen, builder.build().dgram, to)
                    node, slot = graph.nodes["coarse"], session.cells["coarse"].state.slot
                    while node.engine.sampling(slot, "coarse").temperature != pytest.approx(0.75):
                        await loop.sock_recv(screen, 4096)
                    assert graph.nodes["fine"].engine.sampling(slot, "fine").temperature == 1.0
                    session.stop()
                    await task
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
    assert set(told) == {
        "/streamer/generated/level", "/streamer/tokens/semantic", "/streamer/tokens/coarse", "/streamer/tokens/fine"
    }  # fmt: skip
    levels = {"semantic": 1} | {name: graph.plan.facts[name].levels_out[name] for name in ("coarse", "fine")}
    assert {kind: len(told[f"/streamer/tokens/{kind}"]) - 1 for kind in levels} == levels
    assert session.status == "ended"
    assert not any(name.endswith("refused_controls") for name in session.metrics.counters)
