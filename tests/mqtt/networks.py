"""Machines that are not there: network namespaces joined by a bridge, whose cables can be pulled out and made slow."""

import os
import shutil
import subprocess
import time
from itertools import count

import mosquitto

IP, TC = (shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") for name in ("ip", "tc"))
PORT = 1883
_numbers = count()


def missing():
    """Why there are none here; None when there are."""
    if IP is None:
        return "needs ip (Debian: apt-get install iproute2)"
    name = f"t{os.getpid() % 10_000}probe"
    made = subprocess.run([IP, "netns", "add", name], capture_output=True, text=True, check=False)
    if made.returncode:
        return f"no network namespaces here: {made.stderr.strip()}"
    subprocess.run([IP, "netns", "del", name], check=True)
    return None


def run(*command):
    subprocess.run(command, check=True, capture_output=True)


class Network:
    """A hub that is the broker's machine, and a machine for each name, with a cable to the hub.

    Attributes:
        address: of the broker, the same for all machines.
    """

    def __init__(self, *names):
        self.tag = f"t{os.getpid() % 10_000}x{next(_numbers)}"
        self.spaces, self.address = [], "10.203.0.1"
        try:
            self._build(names)
        except BaseException:
            self.close()
            raise

    def _build(self, names):
        hub = self._space("hub")
        run(IP, "-n", hub, "link", "add", "bridge", "type", "bridge")
        run(IP, "-n", hub, "addr", "add", f"{self.address}/24", "dev", "bridge")
        run(IP, "-n", hub, "link", "set", "bridge", "up")
        for number, name in enumerate(names, start=2):
            space = self._space(name)
            run(IP, "-n", space, "link", "add", "cable", "type", "veth", "peer", "name", name, "netns", hub)
            run(IP, "-n", space, "addr", "add", f"10.203.0.{number}/24", "dev", "cable")
            run(IP, "-n", space, "link", "set", "cable", "up")
            run(IP, "-n", hub, "link", "set", name, "master", "bridge", "up")

    def _space(self, name):
        made = self.name_of(name)
        run(IP, "netns", "add", made)
        self.spaces.append(made)
        run(IP, "-n", made, "link", "set", "lo", "up")
        return made

    def name_of(self, name):
        return f"{self.tag}{name}"

    def on(self, name):
        """What a command begins with that is to run on a machine."""
        return [IP, "netns", "exec", self.name_of(name)]

    def cut(self, name):
        """Pull the cable out."""
        run(IP, "-n", self.name_of("hub"), "link", "set", name, "down")

    def mend(self, name):
        """Put it in again."""
        run(IP, "-n", self.name_of("hub"), "link", "set", name, "up")

    def slow(self, name, *how):
        """Make the cable lose and delay, both ways, as `tc netem` has it; False where the kernel cannot."""
        if TC is None:
            return False
        ends = ("hub", name), (name, "cable")
        command = [TC, "-n", "", "qdisc", "add", "dev", "", "root", "netem", *how]
        done = [
            subprocess.run(
                [*command[:2], self.name_of(space), *command[3:6], device, *command[7:]],
                capture_output=True,
                check=False,
            )
            for space, device in ends
        ]
        return all(each.returncode == 0 for each in done)

    def close(self):
        for name in self.spaces:
            subprocess.run([IP, "netns", "del", name], check=False, capture_output=True)


class HubBroker(mosquitto.Broker):
    """Mosquitto on the hub: no other network than this one leads to it."""

    def __init__(self, folder, network, *lines):
        super().__init__(folder, *lines)
        self.network, self.port = network, PORT
        conf = self.folder / "conf"
        first, rest = conf.read_text().split("\n", 1)
        assert first.startswith("listener")
        conf.write_text(f"listener {PORT} {network.address}\n{rest}")

    def start(self):
        log = self.folder / "log"
        with log.open("ab") as file:
            command = [*self.network.on("hub"), mosquitto.PROGRAM, "-c", self.folder / "conf"]
            before = log.stat().st_size
            self.process = subprocess.Popen(command, stdout=file, stderr=file)
        for _ in range(500):
            if b" running" in log.read_bytes()[before:]:
                return self
            time.sleep(0.01)
        raise RuntimeError(log.read_text())
