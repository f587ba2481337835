"""A sound card without hardware: PulseAudio with two null sinks, in a folder of its own, as one object.

What is played into `mic_in` is heard by the virtual microphone `vmic`; what a program plays into `speaker` can be
recorded. Two `pacat` keep both sinks awake, since an idle null sink has two seconds of latency. Knows nothing of the
program under test: that gets `Card.env`, because PortAudio reads the environment when it initialises.
"""

import os
import shutil
import socket
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import soundfile
import soxr

RATE = 48_000  # of both sinks; one channel
NEEDED = ("pulseaudio", "pacat", "parec", "pactl")
PATIENCE = 20.0  # seconds until something that is not about time has certainly failed
SCRIPT = """
.fail
load-module module-native-protocol-unix
load-module module-null-sink sink_name=mic_in rate=48000 channels=1 sink_properties=device.description=MicFeed
load-module module-remap-source source_name=vmic master=mic_in.monitor source_properties=device.description=VirtualMic
load-module module-null-sink sink_name=speaker rate=48000 channels=1 sink_properties=device.description=VirtualSpeaker
set-default-sink speaker
set-default-source vmic
"""
DAEMON = ("--daemonize=no", "--exit-idle-time=-1", "--disallow-exit", "--use-pid-file=no", "--realtime=no",
          "--high-priority=no", "--log-target=stderr", "--log-level=error")  # fmt: skip
RAW = ("--raw", "--format=s16le", f"--rate={RATE}", "--channels=1")
PROMPT = (*RAW, "--latency-msec=10")  # as quick as the program under test
EASY = (*RAW, "--latency-msec=60")  # no underrun on a busy machine


def missing():
    """Why there can be no card here, or None."""
    absent = [name for name in NEEDED if shutil.which(name) is None]
    return f"needs {', '.join(absent)} (Debian: pulseaudio pulseaudio-utils libasound2-plugins)" if absent else None


def samples_of(sound, rate=RATE):
    """A file's path, or an array at 48 kHz, as mono float32 at `rate`."""
    if isinstance(sound, np.ndarray):
        return np.asarray(sound, np.float32)
    data, had = soundfile.read(sound, dtype="float32", always_2d=True)
    return np.asarray(soxr.resample(data.mean(axis=1), had, rate), np.float32)


def until(true, what, patience=PATIENCE):
    """Look every 20 ms until `true()` holds; gives what it gave.

    Raises:
        AssertionError: it never did; `what` says what was waited for.
    """
    end = time.monotonic() + patience
    while not (found := true()):
        assert time.monotonic() < end, f"waited {patience:g} s for {what}"
        time.sleep(0.02)
    return found


def quit_(process):
    """End one process that was started here, and wait for it."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Tape:
    """A recording that grows while a program runs."""

    def __init__(self, file):
        self.file = Path(file)

    @property
    def samples(self):
        """What was recorded so far, float32 at 48 kHz."""
        data = self.file.read_bytes()
        return np.frombuffer(data[: len(data) // 2 * 2], "<i2").astype(np.float32) / 32768

    def wait(self, true, what, patience=PATIENCE):
        """Wait until `true(samples)` holds for what was recorded so far."""
        return until(lambda: true(self.samples), what, patience)


class Card:
    """The virtual card; it is up after `start`."""

    def __init__(self, folder):
        """Lay its folders out; nothing is started."""
        self.folder = Path(folder)
        self.env = dict(os.environ)
        self.daemon = None
        self._keepers = []
        self._others = []
        self._count = 0
        for name in ("XDG_RUNTIME_DIR", "PULSE_RUNTIME_PATH", "HOME"):
            place = self.folder / name.lower()
            place.mkdir(mode=0o700)
            self.env[name] = str(place)
        self.env |= {"PULSE_SOURCE": "vmic", "PULSE_SINK": "speaker"}
        self.env.pop("PULSE_SERVER", None)
        alsa = "pcm.!default { type pulse }\nctl.!default { type pulse }\n"
        (self.folder / "home" / ".asoundrc").write_text(alsa)
        (self.folder / "card.pa").write_text(SCRIPT)

    # -- the daemon -------------------------------------------------------------------------------------------------

    @property
    def up(self):
        """Whether the daemon answers."""
        return self.daemon is not None and self.pactl("info", check=False).returncode == 0

    def start(self):
        """Start the daemon and keep the sinks awake; does nothing when it runs."""
        if self.daemon is not None and self.daemon.poll() is None:
            return
        log = (self.folder / "pulse.log").open("ab")
        with log:
            self.daemon = self._spawn("pulseaudio", "-n", "-F", self.folder / "card.pa", *DAEMON, stderr=log)
        until(lambda: self.up, "the sound server to answer; see pulse.log")
        self._keepers = [
            self._spawn("pacat", "--playback", *PROMPT, "-d", sink, "/dev/zero") for sink in ("mic_in", "speaker")
        ]
        for source in ("vmic", "speaker.monitor"):
            self._settle(source)

    def kill(self):
        """The device vanishes: the daemon is killed, and everything that was connected to it ends."""
        self.daemon.kill()
        self.daemon.wait()
        for process in self._keepers:
            quit_(process)

    def restart(self):
        """The device comes back."""
        self.start()

    def stop(self):
        """End every process that was started here."""
        for process in [*self._others, *self._keepers, self.daemon]:
            if process is not None:
                quit_(process)
        self._others, self._keepers, self.daemon = [], [], None

    def pactl(self, *arguments, check=True):
        """`pactl` with this card's environment; the completed process, its output as text."""
        command = ["pactl", *(str(each) for each in arguments)]
        return subprocess.run(command, env=self.env, capture_output=True, text=True, check=check, timeout=PATIENCE)

    def module_of(self, sink):
        """The number of the module that has made a sink."""
        lines = self.pactl("list", "short", "modules").stdout.splitlines()
        return next(line.split("\t")[0] for line in lines if f"sink_name={sink} " in f"{line} ")

    def end_playing(self, process):
        """End what a process plays, as when its device is pulled out: PulseAudio would move it to another sink."""
        self.pactl("load-module", "module-cli-protocol-unix")
        number = None
        for line in self.pactl("list", "sink-inputs").stdout.splitlines():
            if line.startswith("Sink Input #"):
                number = line.partition("#")[2]
            elif line.strip() == f'application.process.id = "{process}"':
                with socket.socket(socket.AF_UNIX) as door:
                    door.connect(str(Path(self.env["PULSE_RUNTIME_PATH"]) / "cli"))
                    door.settimeout(PATIENCE)
                    door.sendall(f"kill-sink-input {number}\n".encode())
                    door.shutdown(socket.SHUT_WR)
                    while door.recv(4096):  # until it has done that, and hangs up
                        pass

    def _settle(self, source):
        """A sink renders two seconds at once before it notices that somebody wants short blocks: wait that long."""
        grown = []
        with self.recording(source) as tape:
            size = 0

            def steady():
                nonlocal size
                time.sleep(0.05)
                size, before = tape.file.stat().st_size, size
                grown.append(size > before)
                return all(grown[-6:]) and len(grown) >= 6

            until(steady, f"{source} to give sound steadily")

    def _spawn(self, *command, **options):
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "stdin": subprocess.DEVNULL}
        return subprocess.Popen([str(each) for each in command], env=self.env, **(quiet | options))

    def _file(self, name):
        self._count += 1
        return self.folder / f"{self._count}-{name}.raw"

    # -- sound ------------------------------------------------------------------------------------------------------

    def play(self, sound, *, wait=True):
        """Play a file, or an array at 48 kHz, into the virtual microphone.

        Gives the process that plays; with `wait` it has ended, and so has the sound but for a few ms.
        """
        raw = self._file("played")
        raw.write_bytes(np.rint(samples_of(sound).clip(-1, 1) * 32767).astype("<i2").tobytes())
        player = self._spawn("pacat", "--playback", *EASY, "-d", "mic_in", raw)
        self._others.append(player)
        if wait:
            player.wait(120)
        return player

    @contextmanager
    def recording(self, source="speaker.monitor"):
        """Record what is played on the speaker: inside, a `Tape` that grows."""
        tape = Tape(self._file("recorded"))
        with tape.file.open("wb") as out:
            recorder = self._spawn("parec", *PROMPT, "-d", source, stdout=out)
        self._others.append(recorder)
        try:
            until(lambda: tape.file.stat().st_size > 0, "the recorder to begin")
            yield tape
        finally:
            quit_(recorder)

    @contextmanager
    def echo(self, volume=0.5, latency_ms=20):
        """Inside, what the speaker plays is heard by the microphone, `volume` (0..1, linear) times as loud."""
        options = (f"latency_msec={latency_ms}", "source=speaker.monitor", "sink=mic_in", "adjust_time=0")
        module = self.pactl("load-module", "module-loopback", *options).stdout.strip()
        try:
            until(lambda: self._loopback(module), "the echo path")
            self.pactl("set-sink-input-volume", self._loopback(module), f"{round(65536 * volume ** (1 / 3))}")
            yield
        finally:
            self.pactl("unload-module", module, check=False)

    def _loopback(self, module):
        """The number of the sink input that a loopback module has made, or None."""
        found = None
        for line in self.pactl("list", "sink-inputs").stdout.splitlines():
            if line.startswith("Sink Input #"):
                found = line.partition("#")[2]
            elif line.strip() == f"Owner Module: {module}":
                return found
        return None
