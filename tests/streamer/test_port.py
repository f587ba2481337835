import pytest

from streamer import Frame
from streamer.errors import GraphError, OverflowFrameError
from streamer.port import Inbox, Port, PortSpec


def port(policy="block", capacity=2, kind="semantic", into="semantic", **more):
    return Port(PortSpec("a", kind, "b", into, capacity, policy, **more))


def token(position, **fields):
    return Frame.of("semantic", [1], position=position, **fields)


def test_block_says_when_it_is_full():
    it = port()
    it.put(token(0))
    assert it.has_room()
    it.put(token(640))
    assert not it.has_room()
    with pytest.raises(GraphError, match="without waiting"):
        it.put(token(1280))
    assert it.stats() == {"put": 2, "got": 0, "dropped": 0, "waiting": 2, "high": 2, "capacity": 2}


def test_drop_oldest_counts():
    it = port("drop_oldest")
    for i in range(5):
        it.put(token(i))
    assert [f.position for f in it.queue] == [3, 4]
    assert (it.dropped, it.high, it.has_room()) == (3, 2, True)


def test_raise_names_edge_and_capacity():
    it = port("raise", 1)
    it.put(token(0))
    with pytest.raises(OverflowFrameError, match=r"a -> b\.semantic") as error:
        it.put(token(1))
    assert error.value.capacity == 1


def test_nothing_comes_after_last():
    it = port()
    it.put(Frame.end("semantic", position=0))
    with pytest.raises(GraphError, match="after the one with LAST"):
        it.put(token(1))


def inbox(*ports, merge="position"):
    return Inbox(ports, merge)


def taken(box, wanted=None):
    found = box.pick(wanted)
    return None if found is None else (found.input, box.take(found).position)


def test_merge_by_position_waits_for_the_one_behind():
    a, b = port(into="a"), port(into="b")
    box = inbox(a, b)
    a.put(token(0))
    assert taken(box) is None
    b.put(token(0))
    assert [taken(box), taken(box)] == [("a", 0), None]
    a.put(Frame.end("semantic", position=640))
    assert [taken(box), taken(box)] == [("b", 0), None]
    b.put(token(640))
    assert [taken(box), taken(box), taken(box)] == [("a", 640), ("b", 640), None]
    assert not box.ended


def test_wanted_inputs_alone_are_looked_at():
    a, b = port(into="a"), port(into="b")
    box = inbox(a, b)
    b.put(token(640))
    assert taken(box, frozenset("a")) is None
    assert taken(box, frozenset("b")) == ("b", 640)


def test_merge_by_arrival_takes_what_is_there():
    a, b = port(into="a"), port(into="b")
    box = inbox(a, b, merge="arrival")
    b.put(token(640))
    assert taken(box) == ("b", 640)


def test_control_waits_for_its_position_and_a_late_one_counts():
    data, control = port(capacity=9), port(kind="control", into="control", capacity=9)
    box = inbox(data, control)
    control.put(Frame.control("x", position=640))
    assert taken(box) is None
    for i in range(3):
        data.put(token(i * 640))
    assert [taken(box)[0] for _ in range(4)] == ["semantic", "control", "semantic", "semantic"]
    assert box.late == 0
    control.put(Frame.control("x", position=640))
    control.put(Frame.control("now"))
    assert [taken(box)[0] for _ in range(2)] == ["control", "control"]
    assert box.late == 1


def test_saved_ports_go_on():
    it = port(capacity=4)
    it.put(token(0))
    it.put(token(640))
    inbox(it).take(it)
    again = port(capacity=4)
    again.load(it.save())
    assert again.stats() == it.stats()
    assert [f.position for f in again.queue] == [640]
