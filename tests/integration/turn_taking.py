"""Live graphs without devices: sounds by pattern, and a detector that goes by level."""

import graphs
import numpy as np

from streamer.nodes.detect import Heard

TICK = 640
SETTINGS = "{type: turns, hangover_ms: 120, least_ms: 80, pre_roll_ms: 80, burst_ms: 80, gate_ms: 0}"
PATTERNS = ["..xxxxx........xxxx.......", "xxxx.xx.....x.xxx......xxxx...."]


class Loud:
    """Active above a level."""

    def init_state(self):
        return None

    def step(self, tick, state):
        loud = bool(np.abs(tick).max() > 0.01)
        return Heard(active=loud, level_db=-20.0, score=float(loud), onset=False)

    def save(self, state):
        return {}

    def load(self, saved):
        return None


def live(name):
    """A live config whose ends are a sound in memory and a file."""
    text = graphs.text_of(name).replace("{type: microphone}", "pieces").replace("turns: turns", f"turns: {SETTINGS}")
    text = text.replace("{type: speaker}", "{type: file_out}").replace("speaker", "output")
    return "\n".join(line for line in text.splitlines() if "output.control" not in line) + "\n"


def sounding(pattern):
    """A sound that is there where the pattern says `x`."""
    sound = graphs.tone(440, len(pattern) * TICK).astype(np.float32)
    return sound * np.repeat([float(sign == "x") for sign in pattern], TICK).astype(np.float32)
