"""A sound system of a few lines, which stands for PortAudio: devices can vanish, be busy, or be able to do less."""

import time
from dataclasses import replace
from types import SimpleNamespace

from streamer.errors import InputError
from streamer.nodes.devices import DeviceInfo

MIC = DeviceInfo(0, "USB Mic", "ALSA", 2, 0, 44_100, default_input=True)
LOUD = DeviceInfo(1, "Speakers", "ALSA", 0, 2, 48_000, default_output=True)
BOTH = DeviceInfo(2, "USB Headset", "ALSA", 1, 2, 16_000)


def until(true, patience=20.0):
    """Look until it is true; a thread of the program moves on meanwhile."""
    end = time.monotonic() + patience
    while not true():
        assert time.monotonic() < end
        time.sleep(0.001)


class System:
    """What is plugged in, and what programs have done with it."""

    def __init__(self, *devices):
        self.devices = list(devices)
        self.rates = {16_000, 44_100, 48_000}
        self.fewest = 1
        self.busy = set()
        self.streams = []
        self.initialised = self.probes = 0
        self.open_audio = 0

    def unplug(self, name):
        """A device goes: its streams end by themselves."""
        self.devices = [each for each in self.devices if each.name != name]
        for stream in self.streams:
            if stream.device.name == name:
                stream.active = False

    def plug(self, device):
        """A device comes, with a number of its own."""
        self.devices.append(replace(device, index=max((each.index for each in self.devices), default=-1) + 1))

    def running(self, name):
        """The open streams of a device."""
        return [each for each in self.streams if each.device.name == name and not each.closed]

    def backend(self):
        """A class that stands for `PortAudio`."""
        system = self

        class Audio:
            def __init__(self):
                assert not system.open_audio, "PortAudio is initialised once"
                system.open_audio += 1
                system.initialised += 1
                self.listed = list(system.devices)

            @staticmethod
            def outside(asked):
                system.probes += 1
                names = {each.name for each in system.devices} - system.busy
                return SimpleNamespace(ready=True, found=any(name in names for name, *_ in asked), close=print)

            def close(self):
                assert all(each.closed for each in system.streams), "every stream is closed first"
                system.open_audio -= 1

            def devices(self):
                return self.listed

            def can(self, device, direction, rate, channels):
                return rate in system.rates and system.fewest <= channels <= device.channels(direction)

            def open(self, device, direction, *, rate, channels, frames, callback):
                if device.name in system.busy or device.name not in {each.name for each in system.devices}:
                    raise InputError(f"the {direction} {device.name!r} is busy or has gone")
                system.streams.append(Stream(device, frames, callback))
                return system.streams[-1]

        return Audio


class Stream:
    """One stream; a test calls `pulse` where a device would call back."""

    def __init__(self, device, frames, callback):
        self.device, self.frames, self.callback = device, frames, callback
        self.active, self.closed, self.latency = True, False, 0.02
        self.hold = None

    def pulse(self, block=None):
        """One block: float32 in, or what comes out as bytes."""
        return self.callback(None if block is None else block.tobytes(), self.frames, None, 0)[0]

    def close(self):
        if self.hold is not None:
            self.hold.wait()
        self.closed, self.active = True, False
