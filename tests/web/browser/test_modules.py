"""The page's modules that know no page: frames, resampler, jitter buffer, files, spectrum; run in the browser."""

import base64
import io
import json

import numpy as np
import pytest
import soundfile
from fake_server import FakeServer

from streamer.frame import FINE, GENERATED, HEARD, SEMANTIC, Frame


@pytest.fixture(scope="module")
def run(launch):
    """`run(code, value)`: the JavaScript function body `code`, given `value` and the modules, in the page."""
    server = FakeServer()
    server.start()
    page = launch().new_page()
    page.goto(server.url)
    yield lambda code, value=None: page.evaluate(WRAPPED % code, value)
    page.close()
    server.stop()


WRAPPED = """async (value) => {
    const names = ["frames", "resample", "jitter", "wav", "spectrum", "timeline", "tone"];
    const [frames, resample, jitter, wav, spectrum, timeline, tone] =
        await Promise.all(names.map((name) => import(`/static/${name}.js`)));
    %s
}"""
READ = """return value.map((text) => {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    try { const frame = frames.unpack(bytes.buffer); return {...frame, data: [...frame.data]}; }
    catch (error) { if (!(error instanceof frames.FrameError)) throw error; return {refused: error.message}; }
});"""


def read(run, *messages):
    return run(READ, [base64.b64encode(message).decode() for message in messages])


def frames():
    yield Frame.of("audio", np.array([0, 0.5, -1], np.float32), position=640, session="page", seq=3, flags=HEARD)
    yield Frame.of("audio", np.arange(-320, 320, dtype=np.int16), position=2**40, session="é" * 20, epoch=300)
    yield Frame.of(SEMANTIC, [300], position=25600, session="main", seq=70000, flags=GENERATED)
    yield Frame.of(FINE, np.arange(24).reshape(2, 12), position=0, session="")
    yield Frame.control(
        "status", session="page", rtf=0.5, level=-30.25, minus=-7, far=-70000, none=None, yes=True, text="x" * 300
    )
    yield Frame.end(FINE, position=1280, session="main")


def test_frames_of_the_server_are_read(run):
    for made, frame in zip(read(run, *(frame.pack() for frame in frames())), frames(), strict=True):
        for name in ("kind", "session", "epoch", "seq", "position", "rate", "dtype", "flags"):
            assert made[name] == getattr(frame, name)
        assert made["shape"] == list(frame.shape)
        assert made["meta"] == dict(frame.meta)
        assert made["data"] == np.asarray(frame.array).ravel().tolist()


def broken():
    good = next(frames()).pack()
    yield b""
    yield good[:-1]
    yield good + b"\0"
    yield b"\x9b" + good[1:]
    yield good.replace(b"\xa5audio", b"\xa5radio")
    yield good.replace(b"\xa2f4", b"\xa2f8")
    yield good.replace(b"\x91\x03", b"\x91\x04")
    yield b"\x9c\x02" + good[2:]
    yield b"\x9c\x01\xc1" + good[3:]
    yield b"\xdd\xff\xff\xff\xff"
    yield Frame.of(SEMANTIC, [5], position=0, session="").pack().replace(b"\x05\x00", b"\x05\x04")
    yield good[:-1] + b"\x81\xa1a\x81\xa1b\x01"


def test_what_is_no_frame_is_refused(run):
    for answer, message in zip(read(run, *broken()), broken(), strict=True):
        assert list(answer) == ["refused"], message


def test_frames_of_the_page_are_the_servers(run):
    packed = run("""
        const text = (frame) => btoa(String.fromCharCode(...frames.pack(frame)));
        return [
            frames.control("set", {temperature: 0.85, top_k: 0, node: "coarse", left: undefined}),
            frames.control("hello", {seed: 9007199254740991, token: "é".repeat(40), mode: null, on: false, low: -1}),
            frames.sound(Int16Array.from({length: 640}, (_, index) => index - 320), 2 ** 33, 70000),
        ].map(text);""")
    one, other, sound = (Frame.unpack(base64.b64decode(text)) for text in packed)
    assert dict(one.meta) == {"command": "set", "temperature": 0.85, "top_k": 0, "node": "coarse"}
    assert other.meta["seed"] == 2**53 - 1
    assert other.meta["token"] == "é" * 40
    assert (other.meta["mode"], other.meta["on"], other.meta["low"]) == (None, False, -1)
    assert (sound.kind, sound.dtype, sound.position, sound.seq, sound.flags) == ("audio", "i2", 2**33, 70000, HEARD)
    assert np.array_equal(sound.array, np.arange(-320, 320, dtype=np.int16))


RESAMPLE = """
    const [from, to, hertz, sizes] = value;
    const resampler = new resample.Resampler(from, to);
    const out = [];
    const block = new Float32Array(777);
    let at = 0;
    for (let turn = 0; at < from; turn += 1) {
        const size = sizes[turn % sizes.length];
        const sample = (_, index) => Math.sin(2 * Math.PI * hertz * (at + index) / from);
        resampler.push(Float32Array.from({length: size}, sample));
        at += size;
        for (let got; (got = resampler.pull(block)) > 0;) out.push(...block.subarray(0, got));
    }
    return out;"""


@pytest.mark.parametrize(
    ("rate", "to"), [(48000, 16000), (44100, 16000), (16000, 16000), (16000, 48000), (16000, 44100)]
)
def test_the_resampler_keeps_a_tone_whatever_the_blocks(run, rate, to):
    made = np.array(run(RESAMPLE, [rate, to, 1000, [128]]))
    other = np.array(run(RESAMPLE, [rate, to, 1000, [1, 500, 128, 3]]))
    length = min(len(made), len(other)) - 100
    assert length > 0.98 * to
    assert np.abs(made[:length] - other[:length]).max() < 1e-5
    wanted = np.sin(2 * np.pi * 1000 * np.arange(length) / to)
    assert np.abs(made[200:length] - wanted[200:]).max() < 0.003


def test_the_resampler_lets_nothing_fold_down(run):
    folded = np.array(run(RESAMPLE, [48000, 16000, 9500, [128]]))[200:-200]
    assert np.sqrt(np.mean(folded**2)) < 0.002


JITTER = """
    const buffer = new jitter.JitterBuffer({prime: 1280, ...value.options});
    const out = [];
    const sample = (at) => 0.5 * Math.cos(at / 40);
    const wave = (position, count) => Float32Array.from({length: count}, (_, index) => sample(position + index));
    const take = (count) => {
        const block = new Float32Array(count);
        const at = buffer.take(block);
        out.push(...block);
        return at;
    };
    const places = [];
    for (const [what, ...rest] of value.story) {
        if (what === "put") buffer.put(wave(rest[0], rest[1] ?? 640), rest[2] ?? 0, rest[0]);
        else if (what === "take") places.push(take(rest[0]));
        else buffer[what](...rest);
    }
    const {level, underruns, lost, prime, playing} = buffer;
    return {out, places, level, underruns, lost, prime, playing};"""


def story(run, *steps, **options):
    told = run(JITTER, {"story": steps, "options": options})
    told["out"] = np.array(told["out"])
    return told


STEEPEST = 0.5 / 40 + 0.5 / 80 + 1e-6  # of the tone, and of a fade


def test_it_waits_until_it_is_primed_then_plays_all_of_it(run):
    told = story(run, ["put", 640], ["take", 640], ["put", 1280], ["take", 1000])
    assert not told["out"][:640].any()
    assert np.abs(told["out"][800:1640] - 0.5 * np.cos((640 + np.arange(160, 1000)) / 40)).max() < 1e-6
    assert told["places"] == [-1, 640]
    assert told["level"] == 280


def test_running_dry_is_concealed_counted_and_primed_anew_with_more(run):
    told = story(
        run,
        ["put", 0],
        ["put", 640],
        ["take", 1300],
        ["take", 700],
        ["put", 1280],
        ["put", 1920],
        ["take", 500],
        ["put", 2560],
        ["take", 900],
    )
    assert told["underruns"] == 1
    assert told["prime"] == 1920
    assert told["places"] == [0, -1, -1, 1280]
    assert np.abs(np.diff(told["out"])).max() < STEEPEST
    assert np.sqrt(np.mean(told["out"][1280:2500] ** 2)) > 0.2
    assert np.abs(told["out"][2600:3400] - 0.5 * np.cos((1280 + np.arange(100, 900)) / 40)).max() < 1e-6


def test_what_is_made_up_fades_away_or_ends_with_its_turn(run):
    told = story(run, ["put", 0], ["put", 640], ["take", 10000])
    assert not told["out"][1280 + 8000 :].any()
    assert np.abs(np.diff(told["out"])).max() < STEEPEST
    told = story(run, ["put", 0], ["put", 640], ["take", 2000], ["endTurn"], ["take", 500])
    assert told["out"][1990:2000].any()
    assert not told["out"][2081:].any()
    assert np.abs(np.diff(told["out"])).max() < STEEPEST


def test_a_turn_whose_end_comes_late_fades_all_the_same(run):
    told = story(run, ["put", 0], ["put", 640], ["take", 1270], ["endTurn"], ["take", 500])
    assert told["underruns"] == 0
    assert not told["out"][1280 + 81 :].any()
    assert np.abs(np.diff(told["out"])).max() < STEEPEST


def test_the_end_of_a_turn_is_no_underrun_and_a_short_turn_is_played(run):
    told = story(run, ["put", 0], ["endTurn"], ["take", 1000])
    assert told["underruns"] == 0
    assert np.abs(told["out"][100:500]).max() > 0.4
    assert np.abs(np.diff(told["out"])).max() < STEEPEST


def test_an_interruption_fades_within_five_milliseconds_and_the_old_is_ignored(run):
    told = story(
        run,
        ["put", 0],
        ["put", 640],
        ["take", 300],
        ["interrupt", 2],
        ["put", 1280, 640, 1],
        ["take", 700],
        ["put", 0, 1280, 2],
        ["take", 200],
    )
    assert not told["out"][381:1000].any()
    assert told["out"][1000:].any()
    assert told["underruns"] == 0
    assert np.abs(np.diff(told["out"])).max() < STEEPEST


def test_a_flood_is_skipped_without_a_click_and_counted(run):
    told = story(
        run,
        ["put", 0],
        ["put", 640],
        ["take", 640],
        *(["put", 1280 + 640 * tick] for tick in range(15)),
        ["take", 1280],
    )
    assert told["lost"] > 4000
    assert told["level"] < 9000
    assert np.abs(np.diff(told["out"])).max() < STEEPEST


def test_a_wav_is_read_by_others(run):
    data = run("""const samples = Int16Array.from({length: 1000}, (_, index) => index * 30 - 15000);
        return [...wav.wav(samples, {seed: 3, bundle: "pianö", mode: undefined})];""")
    with soundfile.SoundFile(io.BytesIO(bytes(data))) as sound:
        assert (sound.samplerate, sound.channels, sound.subtype) == (16000, 1, "PCM_16")
        assert sound.title == "generated by audiolm"
        assert json.loads(sound.comment) == {"seed": 3, "bundle": "pianö"}
        assert np.array_equal(sound.read(dtype="int16"), np.arange(1000) * 30 - 15000)


def test_a_spectrum_shows_a_tone_in_its_band_alone(run):
    bands = np.array(
        run("""const made = new spectrum.Spectrum();
        let last;
        const sample = (at) => 0.5 * Math.sin(2 * Math.PI * 1000 * at / 16000);
        for (let tick = 0; tick < 4; tick += 1)
            last = made.step(Float32Array.from({length: 640}, (_, index) => sample(640 * tick + index)));
        return [...last];""")
    ).reshape(4, -1)
    loud = bands[2] > 128
    assert 0 < loud.sum() < 8
    edges = 400 * (np.exp(np.linspace(np.log1p(50 / 400), np.log1p(20), bands.shape[1] + 1)) - 1)
    band = int(np.argmax(bands[2]))
    assert edges[band] - 40 < 1000 < edges[band + 1] + 40


def test_a_note_has_its_pitch_and_dies_away(run):
    note = np.array(run("return [...tone.strike(69, 16000)]"))
    spectrum = np.abs(np.fft.rfft(note[:16000]))
    assert np.argmax(spectrum[300:600]) + 300 == pytest.approx(440, abs=2)
    assert np.abs(note).max() == pytest.approx(0.8, abs=0.01)
    assert np.abs(note[:1]).max() < 0.1
    assert np.abs(note[-10:]).max() < 0.001


TAPE = """
    const pairs = [];
    const made = new timeline.Timeline((heard, counts, played) => pairs.push([heard[0], counts, played && played[0]]));
    const token = (tick, flags, data = [tick % 1000]) =>
        made.tokens({kind: "semantic", flags, position: 640 * tick, rate: 25, shape: [data.length], data});
    const hear = () => made.heard(new Int16Array(640).fill(made.count), true);
    const played = (position) => made.played(position < 0 ? null : new Float32Array(640).fill(0.5), position);
    const shown = (from, to) => Array.from({length: to - from}, (_, at) => made.get(from + at).semantic);
"""


def test_heard_tokens_stand_under_their_sound_though_the_sessions_clock_rests_in_silence(run):
    shown = run(
        TAPE
        + """
        const phrase = (first, tick) => {  // what began at tick `first`: three ticks in a burst, then one by one
            while (made.count < first + 5) hear();
            [0, 1, 2].forEach((each) => token(tick + each, frames.HEARD));
            for (let each = 3; each < 20; each += 1) { hear(); token(tick + each, frames.HEARD); }
        };
        phrase(30, 0);
        token(20, frames.HEARD | frames.TURN, []);
        phrase(90, 20);
        return [shown(28, 52), shown(88, 112)];"""
    )
    assert shown == [[-1, -1, *range(20), -1, -1], [-1, -1, *range(20, 40), -1, -1]]


def test_generated_tokens_wait_for_their_sound(run):
    shown, pairs = run(
        TAPE
        + """
        for (let tick = 50; tick < 54; tick += 1) token(tick, frames.GENERATED);
        for (let each = 0; each < 6; each += 1) hear();
        for (const position of [-1, -1, 32000, 32640, 33280, 33920]) played(position);
        return [shown(0, 6), pairs];"""
    )
    assert shown == [-1, -1, 50, 51, 52, 53]
    assert pairs == [[0, True, None], [1, True, None], *([tick, True, 0.5] for tick in (2, 3, 4, 5))]


def test_a_side_that_stops_never_makes_the_tape_grow(run):
    assert run(
        TAPE
        + """
        for (let each = 0; each < 3000; each += 1) { hear(); token(each, frames.GENERATED); }
        for (let each = 0; each < 3000; each += 1) played(640 * each);
        return made.records.length <= 1024 && made.awaited.size <= 64 && made.arrived.length <= 25
            && made.changed.size <= 1024 && made.phrase.tokens.length <= 64;"""
    )
