"""The contract check: what keeps the contract passes, and each way to break it is found under its rule."""

import fakes
import numpy as np
import pytest

from streamer import Build, Finding, Frame, Node, Registry, Settings, check_node
from streamer.contract import RULES, rules_of
from streamer.trial import Given, Stream, difference

TICK = 640


class Smooth(Node):
    """Keeps to all of it: a one-pole filter, sample by sample."""

    type_name = "smooth"
    accepts = ("audio", "control")
    optional = ("control",)
    emits = ("audio",)

    def init_state(self, info):
        return {"y": 0.0, "seen": 0}

    def step(self, frame, state, into):
        if frame.kind == "control":
            return
        yield Frame.of("audio", self.filtered(frame, state), position=frame.position, like=frame, flags=frame.flags)

    def filtered(self, frame, state):
        made = np.zeros(frame.shape[0], np.float32)
        for i, sample in enumerate(np.nan_to_num(frame.array, posinf=0, neginf=0).tolist()):
            state["y"] += 0.1 * (min(max(sample, -1.0), 1.0) - state["y"])
            made[i] = state["y"]
        state["seen"] += len(made)
        return made


def rules(kind, settings=None):
    return [finding.rule for finding in check_node(kind, settings)]


def test_a_good_node_keeps_it():
    assert check_node(Smooth) == []


@pytest.mark.parametrize("kind", [fakes.Pass, fakes.Delay])
def test_so_do_those_of_the_tests(kind):
    assert check_node(kind) == []


@pytest.mark.parametrize("kind", [fakes.Count, fakes.Tokens, fakes.Collect])
def test_of_sources_and_sinks_class_and_settings_are_looked_at(kind):
    assert check_node(kind) == []
    [finding] = check_node(kind, {"nonsense": 1})
    assert finding.rule == "settings"
    assert "unknown key 'nonsense'" in finding.message
    assert list(rules_of(kind)) == ["fits", "settings"]


def test_a_missing_setting_is_named():
    class Needs(Settings):
        path: str

    needing = type("Needing", (Smooth,), {"Config": Needs})
    assert check_node(needing) == [Finding("settings", "path: Field required")]
    assert check_node(needing, {"path": "x"}) == []
    assert check_node(needing, Needs(path="x")) == []


def test_a_misfit_is_not_run():
    assert rules(type("Nameless", (Smooth,), {"type_name": ""})) == ["fits"]
    assert rules(type("Narrow", (Smooth,), {"step": lambda self, frame: ()})) == ["fits"]


class ByPiece(Smooth):
    """Counts pieces, not samples."""

    def filtered(self, frame, state):
        state["seen"] += 1
        return frame.array * np.float32(state["seen"] % 3)


class OnSelf(Smooth):
    """Keeps its state where every session sees it."""

    y = 0.0

    def filtered(self, frame, state):
        inner = {"y": self.y, "seen": 0}
        made = super().filtered(frame, inner)
        self.y = inner["y"]
        return made


class Late(Smooth):
    """Lags by two ticks and does not say so."""

    def init_state(self, info):
        return super().init_state(info) | {"held": np.zeros(0, np.float32), "at": 0}

    def step(self, frame, state, into):
        if frame.kind == "control":
            return
        state["held"] = np.concatenate([state["held"], frame.array])
        count = len(state["held"]) if frame.last else max(0, len(state["held"]) - 2 * TICK)
        if count or frame.last:
            sound, state["held"] = state["held"][:count], state["held"][count:]
            yield Frame.of("audio", sound, position=state["at"], like=frame, flags=frame.flags)
            state["at"] += count


class Poisoned(Smooth):
    """What is no number stays in its state."""

    def filtered(self, frame, state):
        made = np.zeros(frame.shape[0], np.float32)
        for i, sample in enumerate(frame.array.tolist()):
            state["y"] += 0.1 * (sample - state["y"])
            made[i] = state["y"]
        return made


class Divides(Smooth):
    """Divides by the level."""

    def filtered(self, frame, state):
        return np.nan_to_num(frame.array) / np.float32(np.abs(np.nan_to_num(frame.array)) > 0)


class Sealed(Smooth):
    """A state that cannot be saved."""

    def init_state(self, info):
        return iter([super().init_state(info)])

    def step(self, frame, state, into):
        return () if frame.kind == "control" else (frame,)


class Forgetful(Smooth):
    """Saves the half of it."""

    def save(self, state):
        return {"y": 0.0, "seen": state["seen"]}


class Scribbles(Smooth):
    """Writes into what it is given."""

    def step(self, frame, state, into):
        if frame.kind != "control":
            frame.meta["mine"] = True
            yield from super().step(frame, state, into)


class Strict(Smooth):
    """Refuses what it does not know."""

    def step(self, frame, state, into):
        if frame.kind == "control":
            raise KeyError(frame.meta["command"])
        yield from super().step(frame, state, into)


class NeedsSound(Smooth):
    """Cannot take a stream without sound."""

    def step(self, frame, state, into):
        if frame.last and not state["seen"]:
            raise ValueError("nothing came")
        yield from super().step(frame, state, into)


class Overlaps(Smooth):
    """Each frame begins before the one before ends."""

    def step(self, frame, state, into):
        for made in super().step(frame, state, into):
            yield made.replace(position=max(0, made.position - 1))


class Twice(Smooth):
    """Ends twice."""

    def step(self, frame, state, into):
        yield from super().step(frame, state, into)
        if frame.last:
            yield Frame.end("audio", position=frame.position + frame.samples, like=frame)


class Floods(Smooth):
    """Never ends."""

    def step(self, frame, state, into):
        while frame.kind != "control":
            yield Frame.of("audio", None, position=frame.position, like=frame)


class Batches(Smooth):
    """Mixes up those that are stepped together."""

    def step_many(self, batch):
        return [self.step(batch[-1][0], state, into) for _, state, into in batch]


class Breaks(Smooth):
    """Cannot be built."""

    def __init__(self, config, build):
        raise OSError("no such library")


class Opens(Smooth):
    """Cannot be let go."""

    def shutdown(self):
        raise OSError("still open")


@pytest.mark.parametrize(
    ("kind", "wanted", "message"),
    [
        (ByPiece, ["chunking"], "in uneven pieces gives another stream: audio is"),
        (OnSelf, ["reset", "sessions", "restore"], "gives another stream"),
        (Late, ["delay"], "lags by 1280 samples (80 ms), but it declares a delay of 0; say `delay = 1280`"),
        (Poisoned, ["nan"], "still gives samples that are no numbers 640 ms after"),
        (Divides, ["nan", "silence"], "no numbers for silence"),
        (Sealed, ["restore"], "must define save() and load()"),
        (Forgetful, ["restore"], "saved and loaded halfway gives another stream"),
        (Scribbles, ["unchanged"], "changed the audio frame at position 0"),
        (Strict, ["runs"], "KeyError"),
        (NeedsSound, ["runs"], "nothing came"),
        (Overlaps, ["order"], "from position 639 on, but the frame before reached to 640"),
        (Twice, ["last"], "after the one with LAST"),
        (fakes.Forever, ["last"], "gave no audio frame with LAST"),
        (fakes.Wrong, ["kinds"], "gave a semantic frame, but declares only audio"),
        (Floods, ["flood"], "frames for one"),
        (Batches, ["sessions"], "beside another session"),
        (Breaks, ["builds"], "OSError: no such library"),
        (Opens, ["builds"], "OSError: still open"),
    ],
)
def test_each_breach_is_found_under_its_rule(kind, wanted, message):
    found = check_node(kind)
    assert [finding.rule for finding in found] == wanted
    assert message in " ".join(finding.message for finding in found)
    assert set(wanted) <= set(RULES)


def test_what_says_it_cannot_be_restored_need_not_be_the_same_again():
    assert check_node(type("Open", (Forgetful,), {"restorable": False})) == []
    assert check_node(type("Open", (Sealed,), {"restorable": False})) == []


def test_a_declared_delay_is_enough():
    assert check_node(type("Told", (Late,), {"delay": 2 * TICK})) == []


def test_tokens_come_as_the_node_wants_them():
    class Levels(Node):
        type_name = "levels"
        accepts = ("acoustic",)
        emits = ("semantic",)
        seen: set = set()  # noqa: RUF012

        @classmethod
        def facts(cls, config, build):
            base = super().facts(config, build)
            return type(base)(base.inputs, base.emits, levels_in={"acoustic": (3, 9)})

        def step(self, frame, state, into):
            self.seen.add(frame.shape[1] if frame.shape[0] else 3)
            made = frame.array[::2, 0] if frame.shape[0] else None
            yield Frame.of("semantic", made, position=frame.position, like=frame, flags=frame.flags)

    assert check_node(Levels) == []
    assert Levels.seen == {3}


def test_two_inputs_are_lined_up():
    class Joined(fakes.Mix):
        """As the fake, but an end may come with sound."""

        type_name = "joined"

        def init_state(self, info):
            return {"a": [], "b": [], "at": 0, "open": 2}

        def wants(self, state):
            return None

        def step(self, frame, state, into):
            state[into] += frame.array.tolist()
            state["open"] -= frame.last
            ready = min(len(state["a"]), len(state["b"]))
            sound = np.float32(state["a"][:ready]) + np.float32(state["b"][:ready])
            if ready or not state["open"]:
                flags = frame.flags & ~4 | (0 if state["open"] else 4)
                yield Frame.of("audio", sound, position=state["at"], like=frame, flags=flags)
            state["at"] += ready
            for name in "ab":
                state[name] = state[name][ready:]

        def save(self, state):
            return state

        def load(self, saved, info):
            return saved

    assert check_node(Joined) == []


def test_what_it_is_told_of_the_graph_goes_to_the_node():
    class Asks(Smooth):
        def __init__(self, config, build):
            super().__init__(config, build)
            if build.bundle != "tiny":
                raise ValueError("no bundle")

    assert rules(Asks) == ["builds"]
    assert check_node(Asks, build=Build("x", bundle="tiny")) == []


def test_streams_are_cut_as_they_are_told():
    facts = fakes.Pass.facts(None, Build("p"))
    stream = Stream.random("audio", "audio", facts, 8, seed=1)
    sizes = {
        name: [frame.samples for frame in stream.frames(**how)]
        for name, how in {
            "ticks": {},
            "whole": {"whole": True},
            "joined": {"joined": True},
            "ragged": {"seed": 3},
        }.items()
    }
    assert sizes["ticks"] == [TICK] * 8 + [0]
    assert sizes["whole"] == [8 * TICK, 0]
    assert sizes["joined"] == [TICK] * 8
    assert sum(sizes["ragged"]) == 8 * TICK
    assert len(set(sizes["ragged"])) > 2
    assert [frame.last for frame in stream.frames(joined=True)] == [False] * 7 + [True]


@pytest.mark.parametrize(
    ("frames", "told"),
    [
        ([(0, [1, 2]), (2, [3])], ""),
        ([(0, [1, 2, 4])], "audio is 4.0 instead of 3.0 at item 2 of the piece from position 0 on"),
        ([(0, [1, 2])], "audio has 2 items instead of 3"),
        ([(1, [1, 2, 3])], "begins at 1"),
        ([(0, [1, 2]), (5, [3])], "has 2 items instead of 3"),
    ],
)
def test_differences_are_told(frames, told):
    def given(pieces):
        made = [Frame.of("audio", np.float32(items), position=at) for at, items in pieces]
        return Given({"audio": [*made, Frame.end("audio", position=3)]})

    assert told in difference(given([(0, [1, 2, 3])]), given(frames))
    assert bool(told) == bool(difference(given([(0, [1, 2, 3])]), given(frames)))


@pytest.mark.parametrize("name", ["effects", "gate", "mixer", "scheduler", "spatial"])
def test_the_shipped_plugins_keep_it(name):
    registry = Registry()
    registry.load("streamer_plugins")
    settings = {
        "effects": {"chain": [{"type": "reverb"}, {"type": "lowpass"}]},
        "spatial": {"speakers": {"left": [-1, 0], "right": [1, 0]}, "speaker": "left", "at": [0, 1]},
    }
    if name not in registry:
        pytest.skip(f"{name} is not registered")
    assert check_node(registry.get(name), settings.get(name)) == []
