import time

import pytest

from streamer import Frame, Graph, Session
from streamer.lane import Lane

NODES = 20


@pytest.fixture
def chain(registry):
    names = [f"p{i}" for i in range(NODES)]
    text = f"nodes: {{src: count, {', '.join(f'{n}: pass' for n in names)}, out: collect}}\n"
    graph = Graph.parse(text + f"edges: ['src -> {' -> '.join(names)} -> out']", registry).build()
    session = Session(graph)
    session.prepare()
    lane = Lane("main", graph.plan.lanes["main"])
    lane.join(session.cells)
    session.open_cells(lane.order)
    return lane, session.ports["src -> p0.audio"], session.ports[f"p{NODES - 1} -> out.audio"]


def test_a_turn_hands_on_the_same_frame(chain):
    lane, first, last = chain
    frame = Frame.of("audio", [0.0], position=0)
    first.put(frame)
    assert lane.turn() is False
    assert [*last.queue] == [frame]
    assert last.queue[0] is frame


def test_a_turn_fills_no_port_beyond_its_size(chain):
    lane, first, last = chain
    for i in range(16):
        first.put(Frame.of("audio", [0.0], position=i))
    lane.turn()
    assert len(last.queue) == 16
    first.put(Frame.of("audio", [0.0], position=16))
    lane.turn()
    assert len(last.queue) == 16


def test_a_hop_is_cheap(chain):
    """The aim is 2 us; ten times that fails, so that a noisy machine does not."""
    lane, first, last = chain
    frame = Frame.of("audio", [0.0], position=0)
    best = 1.0
    for _ in range(50):
        first.put(frame)
        before = time.perf_counter()
        lane.turn()
        best = min(best, time.perf_counter() - before)
        last.queue.clear()
    assert best / NODES < 20e-6
