"""The page in a real Chromium: it captures, it plays what comes, it says what is wrong, and anyone can use it."""

import io
import re

import numpy as np
import pytest
import soundfile
from browsing import (
    PHRASE,
    RATE,
    REJECT,
    SOUNDING,
    phrase,
    places,
    played,
    wait_for,
    wait_for_state,
    wait_until,
)  # fmt: skip

from audiolm.io import read_metadata

STEEPEST = 0.2  # from sample to sample in the phrase
COMMANDS = "button:visible, select:visible, input:visible"


DROP = """async ([name, bytes]) => {
    const data = new DataTransfer();
    data.items.add(new File([new Uint8Array(bytes)], name));
    for (const type of ["dragover", "drop"])
        document.body.dispatchEvent(new DragEvent(type, {dataTransfer: data, bubbles: true}));
}"""


def wav_bytes(seconds=PHRASE):
    made = io.BytesIO()
    soundfile.write(made, phrase(seconds), RATE, format="WAV")
    return list(made.getvalue())


def heard(server):
    return np.concatenate(server.visit.heard or [np.zeros(0)]) / 32768


def commands(server, name):
    return [meta for command, meta in server.visit.commands if command == name]


def start(page, server):
    page.click("#power")
    wait_for_state(page, "listening")
    assert page.locator("#power-label").text_content() == "Stop"


def test_what_the_microphone_hears_reaches_the_server_and_what_comes_back_is_played(page, server):
    start(page, server)
    assert server.visit.hello["version"] == 1
    wait_for_state(page, "continuing")
    page.get_by_role("status").filter(has_text="Continuing").wait_for()
    wait_until(page, lambda: commands(server, "ping") and commands(server, "report"))
    wait_until(page, lambda: places(heard(server)) and places(played(page)), every=1000)
    sound = played(page)
    before = sound[: round(places(sound)[0] * RATE) - 400]
    assert np.abs(np.diff(before, append=0)).max(initial=0) < STEEPEST  # no click
    stats = page.evaluate("window.streamer.stats()")
    assert stats["refused"] == 0
    assert server.visit.seqs == list(range(len(server.visit.seqs)))


def test_an_interruption_fades_what_is_played_and_it_listens_again(page, server):
    start(page, server)
    wait_for_state(page, "continuing")
    page.click("#listen")
    wait_for_state(page, "listening")
    wait_for(page, "!window.streamer.stats().buffer")
    wait_until(page, lambda: not np.abs(played(page, 0.2)).any())
    assert commands(server, "listen")
    sound = np.trim_zeros(played(page), "b")
    assert len(sound) - np.flatnonzero(sound)[0] < PHRASE * RATE  # the rest was not played
    assert np.abs(sound[-4:]).max() < 0.03  # faded, not cut


def test_a_lost_connection_comes_back_by_itself(page, server):
    start(page, server)
    wait_until(page, lambda: len(server.visit.heard) > 10)
    server.drop()
    wait_for_state(page, "reconnecting")
    page.get_by_role("alert").filter(has_text="by itself").wait_for()
    wait_for_state(page, "listening")
    assert page.is_hidden("#problem")
    assert len(server.visits) == 2
    wait_until(page, lambda: len(server.visit.heard) > 10)  # its positions were checked: they start at 0 again
    assert server.visit.seqs[0] == 0


def test_a_full_server_is_told_of_and_tried_again(page, server):
    server.refusal = ("full", 4001)
    page.click("#power")
    wait_for_state(page, "full")
    assert page.text_content("#state") == "All places are taken"
    assert "full" in page.text_content("#problem-text")
    server.refusal = None
    wait_for_state(page, "listening")
    assert page.is_hidden("#problem")


@pytest.mark.parametrize(
    ("code", "close", "words"), [("failed", 4006, "stopped with an error"), ("limit", 4004, "is over")]
)
def test_an_end_that_trying_again_does_not_mend_is_told_once(page, server, code, close, words):
    server.refusal = (code, close)
    page.click("#power")
    page.get_by_role("alert").filter(has_text=words).wait_for()
    assert page.evaluate("window.streamer.state") == "stopped"
    assert len(server.visits) == 1
    server.refusal = None
    page.click("#problem-again")
    wait_for_state(page, "listening")


BROKEN = """const load = AudioWorklet.prototype.addModule;
AudioWorklet.prototype.addModule = async function (...address) {
    if (window.away !== false) throw new DOMException("it did not come", "AbortError");
    return load.apply(this, address);
};"""


def test_parts_of_the_page_that_do_not_come_are_told_of_and_asked_for_again(browser, open_page):
    page = open_page(browser, init=BROKEN)
    page.click("#power")
    page.get_by_role("alert").filter(has_text="did not come from the server").wait_for()
    assert page.text_content("#power-label") == "Start"
    page.evaluate("window.away = false")
    page.click("#problem-again")
    wait_for_state(page, "listening")


MUTE = """Object.defineProperty(AudioContext.prototype, "state", {get: () => window.pressed ? "running" : "suspended"});
const resume = AudioContext.prototype.resume;
AudioContext.prototype.resume = function () { return window.pressed ? resume.apply(this) : new Promise(() => {}); };"""


def test_a_browser_that_may_not_sound_yet_is_told_what_to_do(browser, open_page):
    page = open_page(browser, init=MUTE + REJECT % "NotAllowedError")
    page.evaluate(DROP, ["phrase.wav", wav_bytes()])  # a drop is no press of a key
    page.get_by_role("alert").filter(has_text="Press Start").wait_for()
    page.evaluate("window.pressed = true")
    page.click("#problem-again")
    wait_for_state(page, "file")
    assert page.is_hidden("#problem")


def test_a_token_is_asked_for_and_one_in_the_address_is_taken_out_of_it(browser, open_page, server):
    secret = server.token = "please"  # noqa: S105
    page = open_page(browser)
    page.click("#power")
    page.get_by_role("dialog").wait_for()
    assert page.text_content("#state") == "Connecting"
    page.fill("#token", "guess")
    page.keyboard.press("Enter")
    page.get_by_text("not right").wait_for()
    page.fill("#token", secret)
    page.keyboard.press("Enter")
    wait_for_state(page, "listening")
    other = open_page(browser, f"#token={secret}")
    assert secret not in other.url
    start(other, server)
    assert server.visit.hello["token"] == secret


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("NotAllowedError", "has refused the microphone"),
        ("NotFoundError", "No microphone was found"),
        ("NotReadableError", "another program may hold it"),
    ],
)
def test_a_microphone_that_cannot_be_had_is_told_of_and_the_rest_works(browser, open_page, server, name, words):
    page = open_page(browser, init=REJECT % name)
    page.click("#power")
    page.get_by_role("alert").filter(has_text=words).wait_for()
    wait_for_state(page, "listening")
    page.keyboard.down("KeyT")
    wait_until(page, lambda: np.abs(heard(server)).max(initial=0) > 0.05)
    page.keyboard.up("KeyT")


def test_the_browsers_own_refusal_is_understood(launch, open_page):
    page = open_page(launch(*SOUNDING, "--use-fake-device-for-media-stream", "--deny-permission-prompts"))
    page.click("#power")
    page.get_by_role("alert").filter(has_text="has refused the microphone").wait_for()


def pitch(samples):
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples)), 1 << 17))
    return np.argmax(spectrum[: 1 << 13]) * RATE / (1 << 17)


@pytest.mark.parametrize("how", ["mouse", "letter", "arrows"])
def test_piano_keys_send_their_sound_and_need_no_microphone(browser, open_page, server, how):
    page = open_page(browser, init=REJECT % "NotAllowedError")
    key = page.get_by_role("button", name="A 4", exact=True)
    page.keyboard.press("KeyZ")  # the first key starts the session
    wait_for_state(page, "listening")
    wait_until(page, lambda: len(server.visit.heard) > 60)
    before = len(server.visit.heard)
    if how == "mouse":
        key.hover()
        page.mouse.down()
    elif how == "letter":
        page.keyboard.down("KeyN")
    else:
        page.get_by_role("button", name="C 4", exact=True).focus()
        for _ in range(9):
            page.keyboard.press("ArrowRight")
        page.keyboard.down("Enter")
    wait_until(page, lambda: len(server.visit.heard) > before + 25)
    assert "down" in key.get_attribute("class")
    assert pitch(np.concatenate(server.visit.heard[before + 5 : before + 22])) == pytest.approx(440, abs=4)
    page.mouse.up()
    page.keyboard.up("KeyN")
    page.keyboard.up("Enter")
    assert "down" not in key.get_attribute("class")
    assert page.is_hidden("#problem")


def test_a_file_that_is_dropped_is_heard_and_continued(browser, open_page, server, tmp_path):
    page = open_page(browser, init=REJECT % "NotAllowedError")
    path = tmp_path / "phrase.flac"
    soundfile.write(path, phrase(), RATE)
    page.evaluate(DROP, [path.name, list(path.read_bytes())])
    wait_for_state(page, "file")
    assert page.text_content("#file-name") == "phrase.flac"
    wait_until(page, lambda: commands(server, "trigger"))
    wait_for_state(page, "continuing")
    assert page.is_hidden("#file-bar")
    assert places(heard(server))


def test_a_file_that_is_chosen_may_be_cut_short_and_one_that_is_no_sound_is_told_of(
    browser, open_page, server, tmp_path
):
    page = open_page(browser, init=REJECT % "NotAllowedError")
    (tmp_path / "no.wav").write_bytes(b"not a sound")
    page.set_input_files("#file-input", tmp_path / "no.wav")
    page.get_by_role("alert").filter(has_text="cannot read no.wav as sound").wait_for()
    soundfile.write(tmp_path / "long.wav", phrase(20), RATE)
    page.set_input_files("#file-input", tmp_path / "long.wav")
    wait_for_state(page, "file")
    wait_until(page, lambda: len(server.visit.phrase) > 50)
    page.click("#continue")
    wait_for_state(page, "continuing")
    assert len(commands(server, "trigger")) == 1
    wait_for_state(page, "listening")
    assert server.visit.epoch == 0  # the file's own end did not interrupt it


def test_a_recording_is_a_wav_that_says_it_was_generated_and_how(page, server, tmp_path):
    page.fill("#seed", "11")
    start(page, server)
    page.click("#record")
    wait_until(page, lambda: places(heard(server)) and places(played(page)), every=1000)
    page.click("#record")
    with page.expect_download() as download:
        page.click("#download")
    path = tmp_path / "take.wav"
    download.value.save_as(path)
    sound, rate = soundfile.read(path)
    assert rate == RATE
    assert sound.ndim == 1
    metadata = read_metadata(path)
    assert metadata.mark == "generated by audiolm"
    assert metadata.settings["seed"] == 11
    assert metadata.settings["temperature_coarse"] == 0.8
    spans = [tuple(map(float, span.split("-"))) for span in metadata.settings["generated"].split(" ")]
    made = [any(begins - 0.3 < at < ends for begins, ends in spans) for at in places(sound)]
    assert set(made) == {False, True}  # what was heard, and what came; and it says which is which


def test_a_recording_of_what_was_heard_alone_has_no_mark(page, server, tmp_path):
    start(page, server)
    page.click("#record")
    wait_until(page, lambda: len(server.visit.heard) > 20)
    page.click("#record")
    with page.expect_download() as download:
        page.click("#download")
    download.value.save_as(tmp_path / "take.wav")
    assert read_metadata(tmp_path / "take.wav").mark == ""


def test_controls_reach_the_server(page, server):
    start(page, server)
    page.select_option("#stage", "coarse")
    page.locator("#temperature").focus()
    page.keyboard.press("ArrowRight")
    wait_until(page, lambda: {"temperature": 0.85, "node": "coarse"} in commands(server, "set"))
    page.select_option("#stage", "")
    page.fill("#top_k", "40")
    wait_until(page, lambda: {"top_k": 40} in commands(server, "set"))
    page.fill("#seed", "5")
    page.press("#seed", "Tab")
    page.select_option("#seconds", "10")
    page.select_option("#detector", "none")
    page.select_option("#bundle", "speech")
    wait_until(page, lambda: server.visit.resets >= 4)
    wanted = {"seed": 5, "seconds": 10, "detector": "none", "bundle": "speech", "mode": "continue"}
    assert commands(server, "reset")[-1] == wanted
    wait_until(page, lambda: {"temperature": 0.85, "top_k": 40, "node": "coarse"} in commands(server, "set"))
    assert page.is_checked("#echo")  # speech from a loudspeaker is taken out of the microphone
    page.keyboard.press("Escape")
    page.click("#power")
    wait_until(page, lambda: commands(server, "bye"))


def test_everything_can_be_done_with_the_keyboard_alone(page, server):
    page.keyboard.press("Tab")
    names = []
    for _ in range(30):
        names.append(page.evaluate("document.activeElement.id || document.activeElement.className"))
        page.keyboard.press("Tab")
    order = [
        name
        for name in ("skip", "theme", "help", "power", "echo", "file", "key white", "typing", "mode", "volume")
        if name in names
    ]
    assert order == sorted(order, key=names.index)
    assert len(order) == 10
    page.keyboard.press("?")
    page.get_by_role("dialog").get_by_text("pass the turn").wait_for()
    page.keyboard.press("Escape")
    assert page.get_by_role("dialog").count() == 0
    page.locator("#power").focus()
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    page.keyboard.press("Enter")
    wait_for_state(page, "listening")
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("k")
    wait_for_state(page, "continuing", "waiting")
    page.keyboard.press("l")
    wait_until(page, lambda: commands(server, "listen"))
    wait_for_state(page, "listening")
    page.keyboard.press("Space")
    wait_until(page, lambda: len(commands(server, "trigger")) == 2)
    page.keyboard.press("i")
    assert page.get_attribute("#mute", "aria-pressed") == "true"
    page.keyboard.press("0")
    wait_until(page, lambda: server.visit.resets == 1)
    page.uncheck("#typing")
    page.keyboard.press("p")
    assert page.text_content("#power-label") == "Stop"
    page.check("#typing")
    page.keyboard.press("p")
    wait_for_state(page, "stopped")


def test_letters_in_a_field_are_text(page, server):
    page.locator("#seed").focus()
    page.keyboard.type("25")
    assert page.input_value("#seed") == "25"
    assert server.visits == []


SMALL = """all => all.map(element => [element.id, element.getBoundingClientRect()])
    .filter(([, {width, height}]) => width < 24 || (height < 24 && height !== 18))
    .map(([id]) => id)"""  # the switches are 18 high, their labels are not


@pytest.mark.parametrize("width", [320, 390, 768, 1440])
def test_no_width_scrolls_sideways(browser, open_page, server, width):
    page = open_page(browser, viewport={"width": width, "height": 780})
    for _ in range(2):
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        start(page, server)
        page.click("#continue")
        wait_for_state(page, "continuing", "waiting", "listening")
        server.do(server.visit.command("refused", code="bad_value", text="a long text " * 20))
        page.get_by_role("alert").filter(has_text="a long text").wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        small = page.eval_on_selector_all(COMMANDS, SMALL)
        assert small == []  # large enough for a finger
        page.click("#power")
        wait_for_state(page, "stopped")


NAMELESS = """all => all
    .filter(element => !(element.getAttribute('aria-label') || element.labels?.length || element.textContent.trim()))
    .map(element => element.id)"""


def test_every_control_has_a_name_and_the_state_is_announced(page):
    nameless = page.eval_on_selector_all(COMMANDS, NAMELESS)
    assert nameless == []
    assert page.locator("[role=status][aria-live=polite] #state").count() == 1
    assert page.locator("canvas[role=img][aria-label]").count() == 1
    assert page.get_attribute("html", "lang") == "en"


COLOURS = """() => {
    const style = getComputedStyle(document.documentElement);
    const names = ['paper', 'raised', 'ink', 'soft', 'heard', 'made', 'on-colour', 'alert', 'tape', 'white-key',
        'key-ink', 'edge-strong'];
    return Object.fromEntries(names.map(name => [name, style.getPropertyValue('--' + name).trim()]));
}"""


def colours(page):
    return page.evaluate(COLOURS)


def contrast(one, other):
    def light(colour):
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        red, green, blue = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    low, high = sorted([light(one), light(other)])
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_dark_and_light_follow_the_system_and_can_be_read(browser, open_page, scheme):
    page = open_page(browser, color_scheme=scheme)
    seen = colours(page)
    for text in ("ink", "soft", "heard", "made", "alert"):
        for ground in ("paper", "raised", "tape"):
            assert contrast(seen[text], seen[ground]) >= 4.5, (text, ground)
    assert contrast(seen["on-colour"], seen["made"]) >= 4.5
    assert contrast(seen["on-colour"], seen["heard"]) >= 4.5
    assert contrast(seen["key-ink"], seen["white-key"]) >= 4.5
    assert contrast(seen["edge-strong"], seen["paper"]) >= 3
    page.click("#theme")
    assert colours(page)["paper"] != seen["paper"]
    page.reload()
    assert colours(page)["paper"] != seen["paper"]  # it is remembered
    page.click("#theme")
    page.click("#theme")
    assert colours(page) == seen


LIT = """() => { const tape = document.getElementById('tape');
    const canvas = new OffscreenCanvas(tape.width, tape.height);
    const context = canvas.getContext('2d', {willReadFrequently: true});
    context.drawImage(tape, 0, 0);
    const {data} = context.getImageData(0, 0, canvas.width, canvas.height);
    let heard = 0, made = 0;
    for (let at = 0; at < data.length; at += 4) {
        const warm = data[at] - data[at + 2];
        if (warm > 50) made += 1;
        if (warm < -50) heard += 1;
    }
    return [heard, made]; }"""


@pytest.mark.parametrize("motion", ["reduce", "no-preference"])
def test_the_picture_shows_heard_and_generated_in_their_colours(browser, open_page, server, motion):
    page = open_page(browser, reduced_motion=motion, color_scheme="dark")
    assert page.evaluate(LIT) == [0, 0]
    start(page, server)
    wait_until(page, lambda: page.evaluate(LIT)[0] > 2000)
    wait_for_state(page, "continuing")
    wait_until(page, lambda: page.evaluate(LIT)[1] > 2000)
    page.set_viewport_size({"width": 500, "height": 700})
    wait_until(page, lambda: min(page.evaluate(LIT)) > 500)  # drawn again in its new size


def test_the_figures_are_shown(page, server):
    start(page, server)
    wait_for_state(page, "continuing")
    wait_until(page, lambda: re.fullmatch(r"\d+ ms", page.text_content("#f-sound")))
    assert re.fullmatch(r"\d+ ms", page.text_content("#f-trip"))
    assert re.fullmatch(r"\d+ / \d+ ms", page.text_content("#f-buffer"))
    assert page.text_content("#f-rtf") == "0.42"
    assert page.text_content("#f-visitors") == "1 of 4"


@pytest.mark.parametrize(
    ("figures", "words"),
    [
        ({"left_s": 42.0}, "ends in 45 seconds"),
        ({"rtf": 1.4, "left_s": None}, "cannot keep up"),
        ({"left_out": "the fine stage", "left_s": None}, "leaves out the fine stage"),
    ],
)
def test_what_the_visitor_should_know_stands_under_the_state(page, server, figures, words):
    server.figures |= figures
    start(page, server)
    page.get_by_role("status").filter(has_text=words).wait_for()


def test_the_policy_is_strict_and_holds(page, open_at):
    violated = """() => new Promise(resolve => {
        document.addEventListener('securitypolicyviolation', event => resolve(event.violatedDirective), {once: true});
        const image = new Image(); image.src = 'http://127.0.0.1:9/away.png'; })"""
    blocked = page.evaluate(violated)
    assert blocked == "img-src"
    assert "Content Security Policy" in open_at.said.pop()
    text = page.content()
    assert not re.search(r"<[^>]+\s(style|on\w+)=", text)
    assert "<style" not in text
    assert all(re.match(r"static/", source) for source in re.findall(r'(?:src|href)="([^"#]+)"', text))


def test_two_pages_are_two_visits(browser, open_page, server):
    one, other = open_page(browser), open_page(browser, init=REJECT % "NotAllowedError")
    start(one, server)
    first = server.visit
    start(other, server)
    wait_for_state(one, "continuing")
    assert not np.abs(played(other)).any()
    assert first is not server.visit
    assert np.abs(np.concatenate(server.visit.heard)).max() <= 1
