"""The report's page: one file that holds everything, asks nobody, and says what was generated and what failed."""

import base64
import re

import numpy as np
import pytest
from heard import CHORDS, notes

from audiolm.errors import InputError
from audiolm.eval import report as reports
from audiolm.eval.examples import write_opus
from audiolm.eval.page import write_page
from audiolm.eval.report import Goal, Section, Took
from audiolm.eval.stats import estimate

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


@pytest.fixture
def folder(tmp_path):
    """A report of two sections: one with everything, one that failed."""
    (tmp_path / "drift.png").write_bytes(PNG)
    (tmp_path / "sounds").mkdir()
    for name, generated in (("a", False), ("b", True)):
        write_opus(tmp_path / "sounds" / f"{name}.opus", notes(CHORDS[0], 1), generated=generated)
    section = Section("drift", "Free <running>", plots=["drift.png"], notes=["See `x & y`, not {{goals}}."])
    section.table("of a & b", ["minute", "loop"], [["1", estimate([0.2, 0.3])]])
    section.goals.append(Goal("loop", 0.25, below=0.5))
    section.sounds += [
        {"file": "sounds/a.opus", "of": "prompt 1", "what": "recording", "generated": False},
        {"file": "sounds/b.opus", "of": "prompt 1", "what": "continuation", "generated": True},
    ]
    reports.add(
        tmp_path, section, bundle="piano@1", command="audiolm eval drift piano", settings={"seed": 0}, took=Took(2, 1)
    )
    reports.add(tmp_path, Section("swuggy", "Words", failed="no <espeak-ng> here"), bundle="piano@1")
    return tmp_path


def test_everything_is_in_one_file_and_escaped(folder):
    text = write_page(folder).read_text()
    assert "Goals: 1 of 1 met" in text
    assert "Free &lt;running&gt;" in text
    assert "of a &amp; b" in text
    assert "<code>x &amp; y</code>, not {{goals}}." in text
    assert "<code>audiolm eval drift piano</code>" in text
    assert "Could not be measured: no &lt;espeak-ng&gt; here" in text
    assert "<dt>versions</dt><dd>python 3" in text
    assert text.count("data:image/") == 1
    assert text.count("data:audio/ogg;base64,") == 2
    assert re.findall(r"<figcaption>(.*?)</figcaption>", text) == ["Drift", "Recording", "Continuation (generated)"]
    sources = re.findall(r'(?:src|href)="([^"]*)"', text)
    assert all(source.startswith(("data:", "#")) for source in sources)
    assert "<script" not in text
    assert "{{" not in text.replace("{{goals}}", "")


def test_without_sounds_it_is_smaller(folder):
    loud = write_page(folder).stat().st_size
    assert write_page(folder, sounds=False).stat().st_size < loud
    assert "<audio" not in (folder / "report.html").read_text()


def test_what_is_missing_is_told(folder, tmp_path):
    (folder / "drift.png").unlink()
    with pytest.raises(InputError, match="png, which the report names, cannot be read"):
        write_page(folder)
    with pytest.raises(InputError, match="holds no report; make one with"):
        write_page(tmp_path / "nowhere")


def test_opus_is_twice_the_same_and_loud_sound_does_not_clip(tmp_path):
    sound = np.float32(3) * notes(CHORDS[0], 1)
    for name in ("a", "b"):
        write_opus(tmp_path / f"{name}.opus", sound, generated=True)
    assert (tmp_path / "a.opus").read_bytes() == (tmp_path / "b.opus").read_bytes()
    with pytest.raises(InputError, match="cannot write"):
        write_opus(tmp_path / "no" / "a.opus", sound, generated=True)


def test_a_large_picture_is_in_the_page_as_webp(folder):
    image = pytest.importorskip("PIL.Image")
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)
    image.fromarray(noise).save(folder / "drift.png")
    assert "data:image/webp;base64," in write_page(folder).read_text()
    assert (folder / "report.html").stat().st_size < 100_000
