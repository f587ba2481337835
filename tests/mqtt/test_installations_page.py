"""What docs/installations.md says to write into a broker's files works with a real Mosquitto; so do its workers."""

import asyncio
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import aiomqtt
import mosquitto
import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "installations.md").read_text(encoding="utf8")
BLOCKS = dict(re.findall(r"^```\w+ (\w+)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))
USERS = {"ears": "one", "brain": "two", "phone": "three"}
LIMIT = 60.0


@pytest.fixture
def installed(tmp_path):
    """A broker made of the page: its certificates, its configuration, its rights, and three users."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    folder = tmp_path / "etc"
    (folder / "certs").mkdir(parents=True)
    command = ["bash", "-e", "-c", BLOCKS["certificates"]]
    subprocess.run(command, cwd=folder / "certs", check=True, capture_output=True)
    port = mosquitto.spare_port()
    text = BLOCKS["mosquitto"].replace("/etc/mosquitto", str(folder))
    text = text.replace("listener 8883", f"user root\nlistener {port} 127.0.0.1")
    (folder / "conf").write_text(f"{text}persistence_location {folder}/\n")
    (folder / "rights").write_text(BLOCKS["rights"])
    (folder / "passwords").write_text("")
    for file in ("rights", "passwords"):
        (folder / file).chmod(0o600)
    for user, password in USERS.items():
        made = [mosquitto.PASSWORDS, "-b", folder / "passwords", user, password]
        subprocess.run(made, check=True, capture_output=True)
    process = subprocess.Popen([mosquitto.PROGRAM, "-c", folder / "conf"], stderr=subprocess.DEVNULL)
    yield folder, port
    process.terminate()
    process.wait(LIMIT)


def connect(folder, port, user, password=None):
    tls = aiomqtt.TLSParameters(ca_certs=str(folder / "certs/ca.crt"))
    password = USERS[user] if password is None else password
    return aiomqtt.Client(
        "localhost", port, username=user, password=password, tls_params=tls, protocol=aiomqtt.ProtocolVersion.V5
    )


async def connected(*given):
    """A client, once the broker listens."""
    async with asyncio.timeout(LIMIT):
        while True:
            client = connect(*given)
            try:
                return await client.__aenter__()
            except aiomqtt.MqttError as error:
                if "refused" not in str(error).lower() or "uthori" in str(error):
                    raise
                await asyncio.sleep(0.05)


async def test_the_broker_of_the_page(installed):
    folder, port = installed
    ears = await connected(folder, port, "ears")
    brain = await connected(folder, port, "brain")
    phone = await connected(folder, port, "phone")
    for topic in ("streamer/+/stream/#", "streamer/+/status", "streamer/brain/control/+"):
        await brain.subscribe(topic, qos=1)
    await brain.publish("streamer/ears/stream/turns/audio", b"forged", qos=1)
    await ears.publish("streamer/brain/status", b"forged", qos=1, retain=True)
    await phone.publish("streamer/ears/stream/turns/audio", b"forged", qos=1)
    await ears.publish("streamer/ears/stream/turns/audio", b"sound", qos=1)
    await brain.publish("streamer/brain/status", b"ready", qos=1, retain=True)
    await phone.publish("streamer/brain/control/mute", b"on", qos=1)
    got = {}
    async with asyncio.timeout(LIMIT):
        async for message in brain.messages:
            got[str(message.topic)] = message.payload
            if len(got) == 3:
                break
    assert got == {
        "streamer/ears/stream/turns/audio": b"sound",
        "streamer/brain/status": b"ready",
        "streamer/brain/control/mute": b"on",
    }
    for client in (ears, brain, phone):
        await client.__aexit__(None, None, None)
    with pytest.raises(aiomqtt.MqttError, match=r"(?i)not authori"):
        await connect(folder, port, "ears", "wrong").__aenter__()


async def test_the_workers_of_the_page(broker, tmp_path, tiny_bundle, prompt):
    """Two of them share a queue; one is killed in the middle and started again."""
    script, sound = tmp_path / "worker.py", Path(prompt).read_bytes()  # noqa: ASYNC240 - a small file
    script.write_text(BLOCKS["worker"].replace("session.seconds=5", "session.seconds=0.4"))
    root = str(Path(__file__).parents[2])
    variables = os.environ | {"PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}
    started = []

    async def start(name):
        command = [sys.executable, script, name, "127.0.0.1", str(broker.port), tiny_bundle]
        made = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, env=variables)
        started.append(made)
        assert await made.stdout.readline() == b"ready\n"
        return made

    try:
        async with (
            asyncio.timeout(LIMIT),
            aiomqtt.Client("127.0.0.1", broker.port, protocol=aiomqtt.ProtocolVersion.V5) as client,
        ):
            await client.subscribe("made/#", qos=1)
            first, _ = await asyncio.gather(start("gpu1"), start("gpu2"))
            for number in range(6):
                await client.publish(f"prompts/{number}", sound, qos=1)
            answers = set()
            async for message in client.messages:
                assert bytes(message.payload).startswith(b"RIFF")
                answers.add(str(message.topic))
                if len(answers) == 1:
                    first.kill()
                    await first.wait()
                    await start("gpu1")
                if len(answers) == 6:
                    break
    finally:
        for process in started:
            if process.returncode is None:
                process.kill()
            await process.wait()
    assert answers == {f"made/{number}" for number in range(6)}
