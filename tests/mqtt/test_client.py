import asyncio
import os
import socket
import ssl

import mosquitto
import pytest
import trustme

from streamer.errors import ConfigError, InputError
from streamer.nodes.mqtt.client import Client, Message
from streamer.settings import MqttSettings


async def until(check, seconds=15.0):
    """Wait until something is true; a failed test, not a hang."""
    async with asyncio.timeout(seconds):
        while not check():  # noqa: ASYNC110 - what it waits for has no event
            await asyncio.sleep(0.005)


async def granted(subscription):
    async with asyncio.timeout(10):
        await subscription.granted.wait()
    return subscription


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
@pytest.mark.parametrize("qos", [0, 1])
async def test_what_is_published_comes(broker, make_client, protocol, qos):
    got = []
    reader = await make_client(broker, "reader", protocol=protocol)
    await granted(reader.subscribe("a/+", qos, got.append))
    writer = await make_client(broker, "writer", protocol=protocol)
    for i in range(100):
        writer.publish("a/b", bytes([i]), qos=1)
    out = writer.outgoing("a/c", qos=qos, capacity=8, policy="block", most_age=10)
    for i in range(100):
        await out.put(bytes([i]))
    await until(lambda: len(got) == 200)
    for name in ("a/b", "a/c"):
        assert [message.payload[0] for message in got if message.topic == name] == list(range(100))
    await until(lambda: out.sent == 100)
    assert (out.waiting, out.dropped) == (0, 0)


async def test_a_question_carries_where_its_answer_goes(broker, make_client):
    got = []
    reader = await make_client(broker, "reader")
    await granted(reader.subscribe("q", 1, got.append))
    reader.publish("q", "what?", qos=1, response_topic="answers/me", correlation=b"7", expiry=60)
    await until(lambda: got)
    assert got == [Message("q", b"what?", 1, response_topic="answers/me", correlation=b"7")]


async def test_what_is_retained_comes_to_those_who_come_later(broker, make_client):
    writer, got = await make_client(broker, "writer"), []
    writer.publish("state", "on", qos=1, retain=True)
    await until(lambda: not writer._post.waiting)
    await granted(writer.subscribe("state", 1, got.append))
    await until(lambda: got)
    assert got[0].retain


async def test_only_the_latest_of_what_waits_is_sent(make_broker, make_client):
    broker = make_broker()
    reader, got = await make_client(broker, "reader"), []
    await granted(reader.subscribe("state", 1, got.append))
    writer = await make_client(broker, "writer")
    for i in range(20):
        writer.publish("state", str(i), qos=1, latest=True)
    await until(lambda: got and got[-1].payload == b"19")
    assert [message.payload for message in got] == [b"19"]


async def test_a_subscription_that_is_taken_back_gets_nothing(broker, make_client):
    client, got, other = await make_client(broker, "one"), [], []
    first = await granted(client.subscribe("a", 1, got.append))
    second = await granted(client.subscribe("a", 1, other.append))
    first.cancel()
    client.publish("a", "1", qos=1)
    await until(lambda: other)
    second.cancel()
    third = []
    await granted(client.subscribe("b", 1, third.append))
    client.publish("a", "2", qos=1)
    client.publish("b", "3", qos=1)
    await until(lambda: third)
    assert (len(got), len(other), client.unmatched) == (0, 1, 0)


async def test_a_killed_broker_that_keeps_its_state_loses_nothing_at_qos_1(make_broker, make_client):
    broker, got = make_broker("autosave_on_changes true", "autosave_interval 1"), []
    reader = await make_client(broker, "reader")
    await granted(reader.subscribe("s", 1, got.append))
    writer = await make_client(broker, "writer")
    out = writer.outgoing("s", qos=1, capacity=400, policy="block")

    async def stream():
        for i in range(300):
            await out.put(str(i).encode())
            await asyncio.sleep(0.003)

    task = asyncio.create_task(stream())
    for at in (50, 150):
        await until(lambda at=at: len(got) > at)
        broker.kill()
        await until(lambda: not writer.connected and not reader.connected)
        assert "127.0.0.1" in writer.error
        broker.start()
        await until(lambda: writer.connected and reader.connected)
    await task
    await until(lambda: len({message.payload for message in got}) == 300)
    numbers = [int(message.payload) for message in got]
    fresh = list(dict.fromkeys(numbers))
    assert fresh == list(range(300))
    assert len(numbers) - 300 <= 2 * 16
    assert (writer.reconnects, reader.reconnects, out.dropped) == (2, 2, 0)


async def test_live_messages_are_not_kept_for_later(broker, make_client):
    got = []
    reader = await make_client(broker, "reader")
    await granted(reader.subscribe("live", 0, got.append))
    writer = await make_client(broker, "writer")
    broker.kill()
    await until(lambda: not writer.connected)
    out = writer.outgoing("live", qos=0, capacity=50, policy="drop_oldest", most_age=0.1)
    for i in range(60):
        await out.put(str(i).encode())
    assert (out.waiting, out.dropped) == (50, 10)
    await asyncio.sleep(0.15)
    broker.start()
    await until(lambda: writer.connected and reader.connected)
    await out.put(b"now")
    await until(lambda: got)
    assert [message.payload for message in got] == [b"now"]
    assert out.dropped == 60


async def test_a_full_outbox_waits_or_drops_by_its_policy(make_client):
    client = await make_client(mosquitto.spare_port(), "alone", connected=False)
    out = client.outgoing("a", qos=1, capacity=3, policy="block")
    assert all(out.put_nowait(b"x") for _ in range(3))
    assert not out.put_nowait(b"y")
    late = asyncio.create_task(out.put(b"z"))
    await asyncio.sleep(0)
    assert not late.done()
    out.clear()
    await late
    assert out.waiting == 1
    for _ in range(2000):
        client.publish("b", b"x", qos=1)
    assert client.dropped == 2000 - 1024


async def test_commands_wait_for_us_at_the_broker(broker, make_client):
    got = []
    first = await make_client(broker, "desk")
    await granted(first.subscribe("control/+", 1, got.append))
    await first.stop()
    sender = await make_client(broker, "phone")
    sender.publish("control/mode", "dream", qos=1)
    await until(lambda: not sender._post.waiting)
    again = await make_client(broker, "desk", connected=False)
    again.subscribe("control/+", 1, got.append)
    await until(lambda: got)
    assert got[0].payload == b"dream"


async def test_a_will_is_published_when_we_vanish_and_not_when_we_leave(broker, make_client):
    got = []
    watcher = await make_client(broker, "watcher")
    await granted(watcher.subscribe("state", 1, got.append))
    client = await make_client(broker, "mortal", will=Message("state", b"gone", 1))
    client.publish("state", "left", qos=1)
    await client.stop()
    reader, writer = await asyncio.open_connection("127.0.0.1", broker.port)
    # CONNECT by hand: protocol 3.1.1, clean, a will at QoS 0; then the line is cut
    writer.write(bytes.fromhex("101a 0004 4d515454 04 06 003c 0001 6d 0005 7374617465 0004 676f6e65".replace(" ", "")))
    assert await reader.readexactly(4) == b"\x20\x02\x00\x00"
    writer.close()
    await writer.wait_closed()
    await until(lambda: len(got) > 1)
    assert [message.payload for message in got] == [b"left", b"gone"]


async def test_two_programs_with_one_identity_are_told(broker, make_client):
    first, second = await make_client(broker, "twin"), await make_client(broker, "twin")
    await until(
        lambda: any("another program use the identity 'twin'" in (each.error or "") for each in (first, second))
    )


async def test_without_a_broker_it_keeps_trying(make_broker, make_client):
    broker = make_broker()
    broker.kill()
    client, got = await make_client(broker, "patient", connected=False), []
    client.subscribe("a", 1, got.append)
    client.publish("a", "kept", qos=1)
    await until(lambda: client.error is not None)
    assert "no broker at 127.0.0.1" in client.error
    waiting = asyncio.create_task(client.wait_connected())
    await asyncio.sleep(0.3)
    assert not waiting.done()
    broker.start()
    async with asyncio.timeout(10):
        await waiting
    await until(lambda: got)
    assert client.error is None


async def test_a_broker_that_answers_nothing_is_noticed(broker, make_client):
    client = await make_client(broker, "patient", keepalive=2)
    broker.freeze()
    client.publish("a", "kept", qos=1)
    await until(lambda: not client.connected)
    assert "no answer" in client.error
    broker.thaw()
    await until(lambda: client.connected and not client._post.waiting)


async def test_a_reader_notices_a_dead_connection_too(broker, make_client):
    client = await make_client(broker, "listener", keepalive=2)
    broker.freeze()
    await until(lambda: not client.connected)
    broker.thaw()
    await until(lambda: client.connected)


async def test_what_hears_us_but_never_answers_leaves_no_socket_behind():
    with socket.create_server(("127.0.0.1", 0)) as server:
        settings = MqttSettings(host="127.0.0.1", port=server.getsockname()[1], keepalive=2)
        client = Client(settings, client_id="hopeful")
        await client.start()
        await until(lambda: client.error is not None)
        assert "no answer" in client.error
        before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
        await client.stop()
        assert len(os.listdir("/proc/self/fd")) <= before  # noqa: PTH208


SECRET = "correct horse"  # noqa: S105


async def test_a_stop_waits_for_nobody_who_does_not_answer():
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = Client(MqttSettings(host="127.0.0.1", port=server.getsockname()[1]), client_id="hasty")
        await client.start()
        line, _ = await asyncio.to_thread(server.accept)
        with line:
            async with asyncio.timeout(2):
                await client.stop()


async def test_a_wrong_password_is_said_at_once(make_broker, make_client, tmp_path, monkeypatch, caplog):
    broker = make_broker(users={"alice": SECRET})
    client = await make_client(broker, "a", username="alice", password="wrong staple", connected=False)  # noqa: S106
    with pytest.raises(InputError, match=r"refuses user 'alice'.*check mqtt.username and the password") as told:
        await client.wait_connected()
    anonymous = await make_client(broker, "b", connected=False, protocol="3.1.1")
    with pytest.raises(InputError, match="a client without user and password"):
        await anonymous.wait_connected()
    await make_client(broker, "c", username="alice", password=SECRET)
    path = tmp_path / "password"
    path.write_text(SECRET + "\n")
    await make_client(broker, "d", username="alice", password_file=str(path))
    monkeypatch.setenv("STREAMER_MQTT_USERNAME", "alice")
    monkeypatch.setenv("STREAMER_MQTT_PASSWORD", SECRET)
    found = await make_client(broker, "e")
    shown = f"{told.value} {vars(found)} {found._access} {client.settings!r} {client.settings.model_dump_json()}"
    assert SECRET not in shown + caplog.text
    assert "staple" not in shown + caplog.text


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"password_file": "nowhere"}, "mqtt.password_file: no file"),
        ({"password": "x"}, "mqtt.username: a password is given but no user"),
        ({"tls": True, "ca_file": "nowhere"}, "mqtt.ca_file: no file"),
        ({"tls": True, "ca_file": __file__}, "mqtt.ca_file: .*holds no certificates"),
        ({"tls": True, "cert_file": __file__}, "mqtt.cert_file: .*no certificate with its key"),
    ],
)
async def test_settings_that_cannot_work_are_refused_before_anything_starts(settings, message):
    with pytest.raises(ConfigError, match=message):
        await Client(MqttSettings(**settings), client_id="x").start()


@pytest.fixture
def certificates(tmp_path):
    """An authority, a certificate for the broker, one for a client, and an authority that nobody trusts."""
    authority, stranger = trustme.CA(), trustme.CA()
    made = {"ca": authority.cert_pem, "strange": stranger.cert_pem}
    server, client = (
        authority.issue_cert("127.0.0.1", "localhost"),
        authority.issue_cert("ears.example", common_name="ears"),
    )
    made |= {"server": server.cert_chain_pems[0], "server.key": server.private_key_pem}
    made |= {"client": client.private_key_and_cert_chain_pem}
    for name, blob in made.items():
        blob.write_to_path(tmp_path / name)
    return {name: str(tmp_path / name) for name in made}


async def test_tls_with_a_client_certificate(make_broker, make_client, certificates):
    tls = {"cafile": certificates["ca"], "certfile": certificates["server"], "keyfile": certificates["server.key"]}
    broker = make_broker(tls=tls | {"require_certificate": "true", "use_identity_as_username": "true"})
    trusted = {"tls": True, "ca_file": certificates["ca"]}
    got = []
    client = await make_client(broker, "ears", **trusted, cert_file=certificates["client"])
    await granted(client.subscribe("a", 1, got.append))
    client.publish("a", os.urandom(200_000), qos=1)
    for i in range(200):
        client.publish("a", bytes([i]), qos=1)
    await until(lambda: len(got) == 201)
    distrustful = await make_client(broker, "b", tls=True, ca_file=certificates["strange"], connected=False)
    with pytest.raises(InputError, match=r"no TLS with 127.0.0.1:.*CERTIFICATE_VERIFY_FAILED"):
        await distrustful.wait_connected()
    bare = await make_client(broker, "c", **trusted, keepalive=2, connected=False)
    await until(lambda: bare.error is not None)
    assert "mqtt.cert_file" in bare.error
    plain = await make_client(broker, "d", keepalive=2, connected=False)
    await until(lambda: plain.error is not None)
    assert "does it speak TLS" in plain.error


async def test_a_name_that_the_certificate_does_not_hold(make_broker, make_client, tmp_path, certificates):
    authority = trustme.CA()
    server = authority.issue_cert("broker.example")
    authority.cert_pem.write_to_path(tmp_path / "ca2")
    server.private_key_and_cert_chain_pem.write_to_path(tmp_path / "server2")
    broker = make_broker(tls={"certfile": tmp_path / "server2", "keyfile": tmp_path / "server2"})
    client = await make_client(broker, "x", tls=True, ca_file=str(tmp_path / "ca2"), connected=False)
    with pytest.raises(InputError, match="CERTIFICATE_VERIFY_FAILED"):
        await client.wait_connected()
    assert client._access.tls.verify_mode == ssl.CERT_REQUIRED


async def test_a_subscription_that_is_refused(make_client):
    """Mosquitto grants every subscription and gives nothing; other brokers say so: here one in a few bytes."""

    async def serve(reader, writer):
        while head := await reader.read(2):
            body = await reader.readexactly(head[1])
            if head[0] >> 4 == 1:
                writer.write(b"\x20\x03\x00\x00\x00")
            elif head[0] >> 4 == 8:
                writer.write(b"\x90\x04" + body[:2] + b"\x00" + (b"\x87" if b"secret" in body else b"\x01"))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    client = await make_client(server.sockets[0].getsockname()[1], "a")
    refused = await granted(client.subscribe("secret/#", 1, print))
    allowed = await granted(client.subscribe("open/#", 1, print))
    assert refused.refused == "the broker refuses to give us 'secret/#': Not authorized"
    assert (allowed.refused, client.connected) == (None, True)
    server.close()


async def test_a_flood_starves_nobody(broker, make_client, heartbeat):
    counted = {"flood": 0, "calm": 0}

    def count(message):
        counted[message.topic] += 1

    reader = await make_client(broker, "reader")
    await granted(reader.subscribe("#", 1, count))
    flooder, calm = await make_client(broker, "flooder"), await make_client(broker, "calm")
    flood = flooder.outgoing("flood", qos=0, capacity=5000, policy="block", most_age=60)

    async def pour():
        for _ in range(5000):
            await flood.put(b"x" * 100)

    task = asyncio.create_task(pour())
    for _ in range(50):
        calm.publish("calm", b"y", qos=1)
        await asyncio.sleep(0.002)
    await task
    await until(lambda: counted["calm"] == 50)
    await until(lambda: counted["flood"] + reader.lost > 3000)


async def test_a_taker_that_fails_ends_nothing(broker, make_client):
    client, got = await make_client(broker, "one"), []

    def fail(message):
        raise ValueError("no more")

    await granted(client.subscribe("a", 1, fail))
    await granted(client.subscribe("a", 1, got.append))
    client.publish("a", "1", qos=1)
    client.publish("a", "2", qos=1)
    await until(lambda: len(got) >= 2)
    assert [str(fault) for fault in client.faults] == ["no more"] * len(client.faults)
    assert client.connected
