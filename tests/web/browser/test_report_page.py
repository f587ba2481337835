"""The report's page in a real Chromium: from a file, without a network, its players play, and it can be read aloud."""

import base64

import numpy as np
import pytest
from browsing import wait_for

from audiolm.eval import report as reports
from audiolm.eval.examples import write_opus
from audiolm.eval.page import write_page
from audiolm.eval.report import Goal, Section

RATE = 16_000
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


@pytest.fixture
def path(tmp_path):
    (tmp_path / "plots.png").write_bytes(PNG)
    (tmp_path / "sounds").mkdir()
    section = Section("plots", "By ear", plots=["plots.png"], notes=["A note."])
    section.table("figures", ["what", *(f"column {i}" for i in range(30))], [["a", *map(str, range(30))]])
    section.goals += [Goal("good", 2.0, above=1.0), Goal("bad", 0.0, above=1.0)]
    tone = (0.2 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)).astype(np.float32)
    for i, generated in enumerate((False, True)):
        write_opus(tmp_path / "sounds" / f"{i}.opus", tone, generated=generated)
        what = "continuation" if generated else "recording"
        section.sounds.append({"file": f"sounds/{i}.opus", "of": "prompt 1", "what": what, "generated": generated})
    reports.add(tmp_path, section, bundle="piano@1", command="audiolm eval plots piano")
    return write_page(tmp_path)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_opens_from_a_file_asks_nobody_and_plays(browser, open_at, path, scheme):
    asked = []
    page = open_at("about:blank", browser, color_scheme=scheme, viewport={"width": 400, "height": 700})
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"file://{path}")
    assert {url.partition(":")[0] for url in asked} <= {"file", "data"}
    assert page.locator("audio").count() == 2
    page.evaluate("document.querySelectorAll('audio').forEach(each => { each.muted = true; each.play(); })")
    wait_for(page, "[...document.querySelectorAll('audio')].every(each => each.currentTime > 0.3)")
    assert page.evaluate("[...document.querySelectorAll('audio')].every(each => Math.abs(each.duration - 1) < 0.2)")
    assert page.evaluate("document.querySelector('img').naturalWidth") == 1
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    dark = page.evaluate("getComputedStyle(document.documentElement).backgroundColor") == "rgb(17, 19, 23)"
    assert dark == (scheme == "dark")


def test_it_says_in_words_what_it_shows(browser, open_at, path):
    page = open_at(f"file://{path}", browser)
    assert page.get_by_role("heading", name="By ear").count() == 1
    assert page.locator("caption").all_inner_texts() == ["Goals: 1 of 2 met", "figures"]
    assert page.locator("img:not([alt])").count() == 0
    assert page.locator("audio:not([aria-label])").count() == 0
    assert page.get_by_text("Continuation (generated)").count() == 1
    page.get_by_role("link", name="By ear").click()
    assert page.url.endswith("#plots")
