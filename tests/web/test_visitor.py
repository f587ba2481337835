"""A visitor, from hello to the closed socket, through a real server."""

import asyncio
import socket as sockets

import msgpack
import numpy as np
import pytest
import websockets

from streamer import Frame
from streamer.link import OUTBOX_FRAMES
from streamer.web.security import Access

TOKEN = "a long enough token"  # noqa: S105


def value(frame):
    return int(frame.array[0])


async def test_sound_goes_in_and_comes_back_as_int16(serve):
    page = await (await serve()).connect()
    welcome = await page.hello(seed=5, seconds=2.5)
    assert welcome.meta["seed"] == 5
    assert welcome.meta["seconds"] == 2.5
    assert welcome.meta["tick"] == 640
    assert welcome.meta["rate"] == 16_000
    assert welcome.session
    await page.sound(100, ticks=3)
    frames = [await page.until("audio") for _ in range(3)]
    assert [value(frame) for frame in frames] == [-100, -100, -100]
    assert [frame.position for frame in frames] == [0, 640, 1280]
    assert {(frame.dtype, frame.shape, frame.session, frame.generated) for frame in frames} == {
        ("i2", (640,), welcome.session, True)
    }


async def test_the_welcome_tells_what_there_is_and_no_path(serve, tiny_bundle):
    page = await (await serve()).connect()
    meta = (await page.hello()).meta
    assert meta["bundle"] == meta["bundles"] == "tiny"
    assert meta["modes"] == "continue,reconstruct"
    assert {"codebook", "levels", "coarse_levels", "lookahead", "temperature_coarse", "top_k_fine"} <= set(meta)
    assert not any(tiny_bundle in str(each) for each in meta.values())


async def test_a_seed_that_is_not_given_is_drawn_and_told(serve):
    server = await serve()
    pages = [await server.connect() for _ in range(2)]
    seeds = [(await page.hello(seed=None)).meta["seed"] for page in pages]
    assert seeds[0] != seeds[1]


async def test_two_visitors_do_not_hear_each_other(serve):
    server = await serve()
    pages = [await server.connect() for _ in range(2)]
    for page, seed in zip(pages, (1, 2), strict=True):
        await page.hello(seed=seed)
    for _ in range(10):
        await pages[0].sound(1000)
        await pages[1].sound(-2000)
    heard = [[value(await page.until("audio")) for _ in range(10)] for page in pages]
    assert heard == [[-1000] * 10, [2000] * 10]
    await pages[0].sound(0)
    assert value(await pages[0].until("semantic")) == 1


async def test_it_is_full_and_says_with_how_many(serve):
    server = await serve(sessions=1)
    first = await server.connect()
    await first.hello()
    second = await server.connect()
    await second.say("hello", version=1)
    error = await second.until("error")
    assert (error.meta["code"], error.meta["sessions"], error.meta["limit"]) == ("full", 1, 1)
    assert await second.closed() == 4001
    assert await server.metric('streamer_refused_total{reason="full"}') == 1
    await first.say("bye")
    assert await first.closed() == 1000
    third = await server.connect()
    assert (await third.hello()).meta["sessions"] == 1


async def test_one_address_cannot_take_every_place(serve):
    server = await serve(sessions=3, per_address=1)
    await (await server.connect()).hello()
    second = await server.connect()
    await second.say("hello", version=1)
    assert "your address" in (await second.until("error")).meta["text"]
    assert await second.closed() == 4001


async def test_behind_a_proxy_visitors_have_the_address_that_it_saw(serve):
    server = await serve(sessions=3, per_address=1, behind_proxy=True)
    for address in ("203.0.113.1", "198.51.100.9, 203.0.113.2"):
        page = await server.connect(additional_headers={"X-Forwarded-For": address})
        await page.hello()
    page = await server.connect(additional_headers={"X-Forwarded-For": "198.51.100.7, 203.0.113.2"})
    await page.say("hello", version=1)
    assert "your address" in (await page.until("error")).meta["text"]


async def test_who_says_no_hello_does_not_stay(serve):
    server = await serve(hello=0.05)
    page = await server.connect()
    assert (await page.until("error")).meta["code"] == "limit"
    assert await page.closed() == 4004


async def test_the_lobby_has_an_end(serve):
    server = await serve(lobby=1)
    await server.connect()
    page = await server.connect()
    assert (await page.until("error")).meta["code"] == "busy"
    assert await page.closed() == 4007


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"version": 2}, "version"),
        ({"version": 1, "path": "/etc/passwd"}, "path"),
        ({"version": 1, "bundle": "../secret"}, "unknown bundle"),
        ({"version": 1, "mode": "dream"}, "mode"),
        ({"version": 1, "mode": "duet"}, "unknown mode"),
        ({"version": 1, "seed": -1}, "seed"),
        ({"version": 1, "seconds": float("nan")}, "seconds"),
        ({"version": 1, "temperature": "hot"}, "temperature"),
        ({"version": 1, "guidance": 3}, "--guidance"),
    ],
)
async def test_a_hello_that_cannot_be_is_told_why(serve, values, said):
    server = await serve()
    page = await server.connect()
    await page.say("hello", **values)
    error = await page.until("error")
    assert error.meta["code"] == "bad_frame"
    assert said in error.meta["text"]
    assert await page.closed() == 4005
    assert server.service.admission.playing == 0


async def test_sound_before_hello_is_refused(serve):
    page = await (await serve()).connect()
    await page.sound(1)
    assert "before hello" in (await page.until("error")).meta["text"]


async def test_what_a_visitor_says_cannot_write_into_the_log_as_it_likes(serve, capsys):
    page = await (await serve()).connect()
    await page.say("hello", **{"version": 1, "x\x1b[2J\nowned": 1})
    assert (await page.until("error")).meta["code"] == "bad_frame"
    await page.closed()
    said = capsys.readouterr().out
    assert "bad_frame" in said
    assert "\x1b[2J" not in said
    assert "\nowned" not in said


async def test_a_token_is_asked_for_and_never_told(serve):
    server = await serve(Access(token=TOKEN))
    for token, wrong in ((None, False), ("not the token", True)):
        page = await server.connect()
        await page.say("hello", version=1, token=token)
        error = await page.until("error")
        assert (error.meta["code"], error.meta["wrong"]) == ("token", wrong)
        assert TOKEN not in str(error.meta)
        assert await page.closed() == 4002
    page = await server.connect()
    assert (await page.hello(token=TOKEN)).meta["command"] == "welcome"


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "https://127.0.0.1:{port}", "http://127.0.0.1:1"])
async def test_another_origin_gets_no_socket(serve, origin):
    server = await serve()
    with pytest.raises(websockets.InvalidStatus) as caught:
        await server.connect(origin=origin.format(port=server.port))
    assert caught.value.response.status_code == 403
    assert "content-security-policy" in caught.value.response.headers
    assert await server.metric('streamer_refused_total{reason="origin"}') == 1


async def test_our_own_origin_gets_one(serve):
    server = await serve()
    page = await server.connect(origin=server.url)
    await page.hello()


async def test_a_foreign_host_gets_no_socket(serve):
    server = await serve()
    with pytest.raises(websockets.InvalidStatus) as caught:
        await server.connect("rebound.example")
    assert caught.value.response.status_code == 421


BAD = {
    "nothing": b"",
    "no msgpack": b"\xc1",
    "no frame": msgpack.packb([1, 2]),
    "other kind": Frame.of("semantic", [1], position=0).pack(),
    "float sound": Frame.of("audio", np.zeros(640, np.float32), position=0).pack(),
    "half a tick": Frame.of("audio", np.zeros(320, np.int16), position=0).pack(),
    "other rate": Frame.of("audio", np.zeros(640, np.int16), position=0, rate=48_000).pack(),
    "unknown command": Frame.control("shutdown").pack(),
    "unknown value": Frame.control("trigger", now=True).pack(),
    "value out of range": Frame.control("set", temperature=99.0).pack(),
    "text": "hello",
}


@pytest.mark.parametrize("name", BAD)
async def test_a_bad_frame_is_refused_and_counted_and_the_session_goes_on(serve, name):
    server = await serve()
    page = await server.connect()
    await page.hello()
    await page.socket.send(BAD[name])
    assert (await page.until("refused")).meta["text"]
    await page.sound(5)
    assert value(await page.until("audio")) == -5
    assert await server.metric("streamer_bad_frames_total") == 1


async def test_too_many_bad_frames_end_the_visit(serve):
    server = await serve(refusals=3, refusal_rate=0.0)
    page = await server.connect()
    await page.hello()
    for _ in range(4):
        await page.socket.send(b"\xc1")
    assert (await page.until("error")).meta["code"] == "bad_frame"
    assert await page.closed() == 4005
    assert await server.metric('streamer_closed_total{reason="bad_frame"}') == 1


async def test_sound_that_goes_backwards_is_refused_and_what_is_skipped_is_counted(serve):
    server = await serve()
    page = await server.connect()
    await page.hello()
    await page.sound(1, position=6400)
    await page.sound(2, position=6400 + 3 * 640)
    assert [(await page.until("audio")).position for _ in range(2)] == [0, 640]
    assert await server.metric("streamer_lost_samples_total") == 2 * 640
    await page.sound(3, position=0)
    assert "position 0" in (await page.until("refused")).meta["text"]


async def test_a_message_that_is_too_large_ends_the_visit(serve):
    page = await (await serve()).connect()
    await page.hello()
    await page.socket.send(bytes(9000))
    assert await page.closed() == 1009


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"messages": 1.0, "message_burst": 5}, Frame.of("audio", np.zeros(640, np.int16), position=0).pack()),
        ({"bytes": 1.0, "byte_burst": 3000}, Frame.of("audio", np.zeros(640, np.int16), position=0).pack()),
        ({"controls": 1.0, "control_burst": 3}, Frame.control("ping").pack()),
    ],
)
async def test_too_much_at_once_ends_the_visit(serve, limits, message):
    page = await (await serve(**limits)).connect()
    await page.hello()
    for _ in range(6):
        await page.socket.send(message)
    assert (await page.until("error")).meta["code"] == "limit"
    assert await page.closed() == 4004


async def test_reset_begins_another_session_on_the_same_socket(serve):
    server = await serve()
    page = await server.connect()
    first = await page.hello(seed=1)
    await page.sound(3)
    await page.until("audio")
    await page.say("reset", seed=2, mode="reconstruct")
    second = await page.until("welcome")
    assert (second.meta["seed"], second.meta["mode"]) == (2, "reconstruct")
    assert second.session != first.session
    page.position = 0
    await page.sound(4)
    frame = await page.until("audio")
    assert (frame.session, frame.position, value(frame)) == (second.session, 0, -4)
    assert value(await page.until("semantic")) == 2
    assert server.service.admission.playing == 1
    assert await server.metric("streamer_sessions_started_total") == 2
    assert await server.metric("streamer_visits_total") == 1


async def test_a_reset_that_cannot_be_leaves_the_session_as_it_is(serve):
    page = await (await serve()).connect()
    await page.hello()
    await page.say("reset", bundle="nowhere")
    assert "unknown bundle" in (await page.until("refused")).meta["text"]
    await page.sound(4)
    assert value(await page.until("audio")) == -4


async def test_resets_in_a_row_end_with_the_last(serve):
    page = await (await serve()).connect()
    await page.hello()
    for seed in range(10):
        await page.say("reset", seed=seed)
    await page.until("welcome", seed=9)
    await page.sound(1)
    assert value(await page.until("semantic")) == 9


async def test_commands_reach_the_session(serve):
    page = await (await serve()).connect()
    await page.hello()
    await page.say("mute", on=True)
    await page.until("status", muted=True)
    await page.sound(9)
    assert value(await page.until("audio")) == 0
    await page.say("listen")
    assert (await page.until("interrupt")).epoch == 1
    await page.say("ping", at=12.5)
    assert (await page.until("pong")).meta["at"] == 12.5
    await page.say("hello", version=1)
    assert "twice" in (await page.until("refused")).meta["text"]


async def test_mute_lasts_over_a_reset(serve):
    page = await (await serve()).connect()
    await page.hello()
    await page.say("mute")
    await page.say("reset")
    await page.until("welcome")
    await page.sound(9)
    assert value(await page.until("audio")) == 0


async def test_status_tells_how_it_goes(serve):
    page = await (await serve(visit=60.0)).connect()
    await page.hello()
    await page.say("trigger")
    await page.sound(16384, ticks=2)
    status = await page.until("status", generated_s=0.08)
    meta = status.meta
    assert (meta["sessions"], meta["limit"], meta["dropped_in"], meta["dropped_out"]) == (1, 2, 0, 0)
    assert meta["level_db"] == pytest.approx(-6.02, abs=0.01)
    assert 0 < meta["left_s"] < 60
    assert meta["decision_to_sound_ms"] > 0


async def test_a_session_that_fails_is_told_and_harms_nobody(serve):
    server = await serve()
    pages = [await server.connect() for _ in range(2)]
    for page in pages:
        await page.hello()
    await pages[0].sound(12345)
    error = await pages[0].until("error")
    assert error.meta["code"] == "failed"
    assert "what a sound" not in error.meta["text"]
    assert await pages[0].closed() == 4006
    await pages[1].sound(7)
    assert value(await pages[1].until("audio")) == -7


async def test_the_time_of_a_visit_ends(serve):
    page = await (await serve(visit=0.3)).connect()
    assert 0 < (await page.hello()).meta["limit_seconds"] <= 0.3
    error = await page.until("error")
    assert error.meta["code"] == "limit"
    assert "time is up" in error.meta["text"]
    assert await page.closed() == 4004


async def test_who_says_nothing_is_sent_home(serve):
    page = await (await serve(idle=0.3)).connect()
    await page.hello()
    assert "nothing came" in (await page.until("error")).meta["text"]
    assert await page.closed() == 4004


async def test_who_leaves_gets_what_is_on_its_way(serve):
    server = await serve()
    page = await server.connect()
    await page.hello()
    await page.sound(8, ticks=5)
    await page.say("bye")
    got = [value(await page.until("audio")) for _ in range(5)]
    assert got == [-8] * 5
    assert (await page.until("audio")).last
    await page.until("bye")
    assert await page.closed() == 1000


async def test_a_lost_socket_frees_its_place(serve):
    server = await serve(sessions=1)
    page = await server.connect()
    await page.hello()
    page.socket.transport.abort()
    await server.empty()
    assert (await (await server.connect()).hello()).meta["sessions"] == 1


async def test_a_slow_reader_is_bounded_and_sent_home(serve):
    server = await serve(slow=0.2, messages=1e9, message_burst=10**9, bytes=1e9, byte_burst=10**9)
    reader = sockets.socket()
    reader.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 4096)
    reader.setblocking(False)  # noqa: FBT003
    await asyncio.get_running_loop().sock_connect(reader, ("127.0.0.1", server.port))
    page = await server.connect(sock=reader, max_queue=1)
    await page.hello()
    page.socket.transport.pause_reading()
    visitor = next(iter(server.service.visitors))
    most = 0
    while visitor in server.service.visitors:
        await page.sound(1, ticks=10)
        await asyncio.sleep(0.001)
        most = max(most, len(visitor.outbox))
        assert most <= OUTBOX_FRAMES + 64
    assert most > OUTBOX_FRAMES / 2
    assert await server.metric('streamer_closed_total{reason="slow"}') == 1
    assert await server.metric('streamer_dropped_frames_total{box="out"}') > 0
    page.socket.transport.abort()


async def test_the_server_says_bye_when_it_ends(serve):
    server = await serve()
    page = await server.connect()
    await page.hello()
    server.server.should_exit = True
    assert "ends" in (await page.until("bye")).meta["text"]
    assert await page.closed() == 1001
    await server.task
    assert not server.service.visitors
