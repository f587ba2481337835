"""A real Mosquitto for tests: on a spare loopback port, in a temporary folder, ended by its process id."""

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

PROGRAM = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
PASSWORDS = shutil.which("mosquitto_passwd") or shutil.which("mosquitto_passwd", path="/usr/bin:/usr/local/bin")


def spare_port():
    """A port that nobody listens on now."""
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        return made.getsockname()[1]


class Broker:
    """One broker; `lines` go into its configuration."""

    def __init__(self, folder, *lines, users=None, rights=None, tls=None, persistence=True):
        self.folder, self.port = Path(folder), spare_port()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.process = None
        made = [f"listener {self.port} 127.0.0.1", "user root", f"persistence_location {self.folder}/"]
        made += [f"persistence {'true' if persistence else 'false'}", *lines]
        if users:
            made += ["allow_anonymous false", f"password_file {self._passwords(users)}"]
        elif not tls:
            made += ["allow_anonymous true"]
        if rights:
            path = self.folder / "rights"
            path.write_text(rights)
            path.chmod(0o600)
            made += [f"acl_file {path}"]
        made += [f"{key} {value}" for key, value in (tls or {}).items()]
        (self.folder / "conf").write_text("\n".join(made) + "\n")

    def _passwords(self, users):
        path = self.folder / "passwords"
        path.write_text("")
        path.chmod(0o600)
        for user, password in users.items():
            subprocess.run([PASSWORDS, "-b", path, user, password], check=True, stderr=subprocess.DEVNULL)
        return path

    def start(self):
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen([PROGRAM, "-c", self.folder / "conf"], stdout=log, stderr=log)
        for _ in range(500):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return self
            time.sleep(0.01)
        raise RuntimeError((self.folder / "log").read_text())

    def kill(self):
        """As a power cut: nothing is written, nobody is told."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def freeze(self):
        """It keeps its connections and answers nothing any more."""
        os.kill(self.process.pid, signal.SIGSTOP)

    def thaw(self):
        os.kill(self.process.pid, signal.SIGCONT)

    def stop(self):
        if self.process is not None:
            os.kill(self.process.pid, signal.SIGCONT)
            self.process.terminate()
            self.process.wait()
            self.process = None
