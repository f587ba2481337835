"""What the tests of the sound plugins share: streams in any chunking, a node run by hand, and ends for whole graphs."""

from itertools import pairwise

import numpy as np

from streamer import GENERATED, HEARD, LAST, Build, Frame, Registry, SessionInfo, Settings, Sink, Source
from streamer.snapshot import dumps, loads

TICK = 640
SIZES = (640, 1, 333, 7, 2000, 641, 160)


def noise(count, seed=0, level=0.3):
    return np.random.default_rng(seed).uniform(-level, level, count).astype(np.float32)


def stream(sound, sizes=(TICK,), *, start=0, flags=HEARD, end=True, **fields):
    """A sound as frames whose sizes go round `sizes`; the last one is an empty frame with LAST."""
    made, at, turn = [], 0, 0
    while at < len(sound):
        piece = sound[at : at + sizes[turn % len(sizes)]]
        made.append(Frame.of("audio", piece, position=start + at, seq=turn, flags=flags, session="main", **fields))
        at, turn = at + len(piece), turn + 1
    if end:
        made.append(Frame.end("audio", position=start + at, seq=turn, flags=flags, session="main", **fields))
    return made


def made(kind, name="node", **settings):
    return kind(kind.Config(**settings), Build(name))


def info(*inputs, **fields):
    return SessionInfo(inputs=frozenset(inputs or ("audio",)), **fields)


def give(node, frames, state, into="audio"):
    """Everything that a node gives for frames by one input."""
    return [out for frame in frames for out in node.step(frame, state, "control" if frame.kind == "control" else into)]


def through(node, frames, **fields):
    """Everything that a fresh session gives."""
    return give(node, frames, node.init_state(info(**fields)))


def again(node, state, session=None):
    """The state through the bytes of a snapshot, in a session of its own."""
    return node.load(
        loads(dumps({"state": node.save(state)}))["state"], session or info(*getattr(state, "strands", ()))
    )


def samples(frames):
    """The sound of frames, joined."""
    return np.concatenate([np.zeros(0, np.float32), *(frame.array for frame in frames if frame.payload)])


def timeline(frames):
    """Position -> (sample, generated, epoch): what a chunking must not change."""
    found = {}
    for frame in frames:
        for offset, value in enumerate(frame.array.tolist()):
            assert frame.position + offset not in found, "two samples at one position"
            found[frame.position + offset] = (value, frame.generated, frame.epoch)
    return found


def ordered(frames):
    """Assert the contract of a stream: rising positions and numbers, one LAST, at the end."""
    audio = [frame for frame in frames if frame.kind == "audio"]
    assert [frame.last for frame in audio] == [False] * (len(audio) - 1) + [True]
    assert [frame.seq for frame in audio] == sorted({frame.seq for frame in audio})
    ends = [(frame.position, frame.position + frame.shape[0]) for frame in audio]
    assert all(after[0] >= before[1] for before, after in pairwise(ends))
    assert all(np.isfinite(frame.array).all() for frame in audio)
    assert not any(frame.flags & LAST and frame.payload for frame in audio)
    return audio


class SoundsSettings(Settings):
    sound: str = "sound"
    size: int = TICK
    start: int = 0
    generated: bool = False


class Sounds(Source):
    """Gives the sound of a name from `ctx.extra`."""

    type_name = "sounds"
    emits = ("audio",)
    Config = SoundsSettings

    async def frames(self, ctx):
        flags = GENERATED if self.config.generated else HEARD
        for frame in stream(ctx.extra[self.config.sound], (self.config.size,), start=self.config.start, flags=flags):
            yield frame.replace(session=ctx.id)


class Keep(Sink):
    """Keeps what it gets in `ctx.extra["got"]`."""

    type_name = "keep"
    accepts = ("audio",)

    async def write(self, frame, ctx, into):
        ctx.extra["got"].append(frame)


def registry(*types):
    """The built-in types, these, and the two ends."""
    known = Registry.with_builtins()
    for each in (Sounds, Keep, *types):
        known.add(each)
    return known
