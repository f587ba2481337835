"""The listening test's page in a real Chromium: it is blind, it counts as Python does, and a keyboard is enough."""

import csv
import json

import numpy as np
import pytest
from browsing import wait_for

from audiolm.eval import heard, listen
from audiolm.eval.continuation import BARE, MODEL

RATE = 16_000
SETTINGS = {"heard": 0.2, "seconds": 0.3, "prompt": True, "raw": False}


def tone(pitch, seconds=0.5):
    return (0.1 * np.sin(2 * np.pi * pitch * np.arange(round(seconds * RATE)) / RATE)).astype(np.float32)


def trials(real=2, pairs=2):
    made = [listen.Trial("real", {listen.RECORDING: tone(200 + i), MODEL: tone(300 + i)}) for i in range(real)]
    return made + [listen.Trial("pairs", {MODEL: tone(400 + i), BARE: tone(500 + i)}) for i in range(pairs)]


@pytest.fixture
def opened(browser, open_at, tmp_path):
    """`opened(trials, hash)`: the page, from a file as people open it."""

    def start(made=None, seed="#seed=7", *, beside=None, **options):
        html = listen.page(made or trials(), bundle="tiny@1", settings=SETTINGS, beside=beside)
        path = tmp_path / "listen.html"
        path.write_text(html, encoding="utf8")
        return open_at(path.as_uri() + seed, browser, **options)

    return start


def play_all(page):
    buttons = page.locator("#clips button")
    for index in range(buttons.count()):
        buttons.nth(index).click()
        wait_for(page, f"plays[{index}] > 0")


def answer(page, index):
    page.locator("input[name=answer]").nth(index).check()
    page.click("#next")


def go_through(page, chosen=0):
    page.click("#start")
    while page.locator("#trial").is_visible():
        play_all(page)
        answer(page, chosen)


def saved(page, button, path):
    with page.expect_download() as waiting:
        page.click(button)
    waiting.value.save_as(path)
    return waiting.value.suggested_filename


def test_a_listener_goes_through_and_python_counts_the_same(opened, tmp_path):
    page = opened()
    page.fill("#listener", '=Ada "L"')
    go_through(page)
    name = saved(page, "#save-json", tmp_path / "a.json")
    found = json.loads((tmp_path / "a.json").read_text())
    assert name == f"heard-{found['page'][:8]}-7.json"
    listener = heard.read(tmp_path / "a.json")
    assert (listener.name, listener.seed, listener.bundle) == ('=Ada "L"', 7, "tiny@1")
    counts = heard.counts(listener.answers)
    assert {test: count.as_dict() for test, count in counts.items()} == {
        test: pytest.approx(count) for test, count in found["counts"].items()
    }
    real = [trial for trial in found["trials"] if trial["test"] == "real"]
    assert [trial["right"] for trial in real] == [trial["truth"] == ["recording"] for trial in real]
    assert all(trial["right"] == (trial["truth"][0] == MODEL) for trial in found["trials"][2:])
    assert [trial["plays"] for trial in found["trials"]] == [[1], [1], [1, 1], [1, 1]]
    assert f"{counts['pairs'].right} of 2" in page.inner_text("#counts")
    saved(page, "#save-csv", tmp_path / "a.csv")
    rows = list(csv.DictReader((tmp_path / "a.csv").read_text().splitlines()))
    assert [row["right"] for row in rows] == [str(trial["right"]).lower() for trial in found["trials"]]
    assert {row["listener"] for row in rows} == {'\'=Ada "L"'}


def test_nothing_tells_before_the_end(opened):
    page = opened()
    page.click("#start")
    assert page.inner_text("#count") == "Trial 1 of 4"
    assert page.locator("#next").is_disabled()
    page.locator("input[name=answer]").first.check()
    assert page.locator("#next").is_disabled()
    assert page.inner_text("#wants") == "Play the clip to the end first."
    play_all(page)
    answer(page, 0)
    assert page.inner_text("#count") == "Trial 2 of 4"
    assert page.evaluate("document.getElementById('counts').textContent") == ""
    assert BARE not in page.evaluate("document.getElementById('page').textContent")
    assert (
        page.evaluate("performance.getEntriesByType('resource').filter((each) => /^http/.test(each.name)).length") == 0
    )


def test_a_seed_repeats_and_coins_are_fair(opened):
    page = opened()
    assert page.evaluate("JSON.stringify(plan(7)) === JSON.stringify(plan(7))")
    drawn = page.evaluate("""() => {
        const key = truths();
        return [...Array(2000).keys()].map((seed) => plan(seed).map((each) => [each.trial, key[each.clips[0].id]]));
    }""")
    assert len({json.dumps(each) for each in drawn}) == 4 * 16  # orders of two trials a test, and a coin for each trial
    assert [len(each) for each in drawn[:3]] == [4, 4, 4]
    for trial in {trial for each in drawn for trial, _ in each}:
        shown = [what for each in drawn for name, what in each if name == trial]
        assert 0.45 < np.mean([what == MODEL for what in shown]) < 0.55
    first = [each[0][0] for each in drawn]
    assert 0.45 < np.mean([name == first[0] for name in first]) < 0.55


def test_a_seed_is_drawn_where_none_is_given(opened):
    seeds = {opened(seed="").inner_text("#seed") for _ in range(2)}
    assert len(seeds) == 2


def test_the_statistics_of_the_page_are_those_of_python(opened):
    page = opened()
    for n in (1, 2, 10, 25, 400):
        ours = page.evaluate(f"[...Array({n + 1}).keys()].map((k) => [binomial(k, {n}), ...wilson(k, {n})])")
        for k, each in enumerate(ours):
            assert each == pytest.approx([heard.binomial(k, n), *heard.wilson(k, n)], rel=1e-9, abs=1e-12)


def test_a_keyboard_is_enough(opened):
    page = opened(trials(real=1, pairs=0))
    page.focus("#start")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "count"
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    wait_for(page, "plays[0] > 0")
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "next"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "ended"
    assert page.evaluate("answers[0].chosen") == MODEL


def test_everything_has_a_name(opened):
    page = opened()
    for _ in range(2):
        for each in page.locator("button:visible, input:visible, select:visible").all():
            assert each.evaluate("node => (node.labels?.[0] ?? node).textContent.trim()")
        if page.locator("#start").is_visible():
            page.click("#start")
    assert page.get_by_role("group", name="What follows the beginning is").is_visible()
    assert page.get_by_role("progressbar", name="Trials done").is_visible()


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_text_stands_out_in_dark_and_light(opened, scheme):
    page = opened(color_scheme=scheme)

    def brightness(selector, name):
        colour = page.evaluate(f"getComputedStyle(document.querySelector('{selector}')).{name}")
        parts = [int(part) / 255 for part in colour.removeprefix("rgb(").removesuffix(")").split(",")]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))

    paper = brightness("html", "backgroundColor")
    assert (paper < 0.1) == (scheme == "dark")
    pairs = [(brightness(text, "color"), paper) for text in ("html", ".soft")]
    pairs.append((brightness("#start", "color"), brightness("#start", "backgroundColor")))
    assert all((max(pair) + 0.05) / (min(pair) + 0.05) >= 4.5 for pair in pairs)


def test_one_clip_plays_at_a_time_and_can_be_stopped(opened):
    page = opened([listen.Trial("pairs", {MODEL: tone(400, 20), BARE: tone(500, 20)})])
    page.click("#start")
    buttons = page.locator("#clips button")
    buttons.nth(0).click()
    assert buttons.nth(0).inner_text() == "Stop clip A"
    buttons.nth(1).click()
    assert [buttons.nth(index).inner_text() for index in (0, 1)] == ["Play clip A", "Stop clip B"]
    buttons.nth(1).click()
    assert buttons.nth(1).inner_text() == "Play clip B"
    assert page.locator("#next").is_disabled()


def test_clips_beside_the_page_play(opened, tmp_path):
    page = opened(beside=tmp_path)
    go_through(page)
    assert len(page.evaluate("answers")) == 4
