"""The commands that take a report somewhere: its page again, and sections of one report in another."""

import base64
import contextlib
import io

import pytest

from audiolm import cli
from audiolm.errors import InputError
from audiolm.eval import compare
from audiolm.eval import report as reports
from audiolm.eval.report import Section

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def call(*arguments):
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        cli.eval_app([str(each) for each in arguments], standalone_mode=False)
    return said.getvalue()


def made(folder, name, *, bundle="piano@1", value=1.0):
    section = Section(name, name, figures={"one": value}, plots=[f"{name}.png"])
    reports.add(folder, section, bundle=bundle)
    (folder / f"{name}.png").write_bytes(PNG)


def test_the_page_is_made_again(tmp_path):
    made(tmp_path, "drift")
    assert "report.html: 0.0" in call("page", tmp_path, "--no-sounds")
    assert (tmp_path / "report.html").exists()


def test_a_section_is_taken_with_its_plots_and_replaces_the_old(tmp_path):
    into, source = tmp_path / "a", tmp_path / "b"
    made(into, "drift", value=5.0)
    made(into, "plots")
    made(source, "drift", value=60.0)
    made(source, "semantic")
    call("join", into, source, "--section", "drift")
    found = reports.read(into)["sections"]
    assert {name: each["figures"]["one"] for name, each in found.items()} == {"drift": 60.0, "plots": 1.0}
    assert (into / "report.html").exists()
    call("join", into, source)
    assert list(reports.read(into)["sections"]) == ["semantic", "drift", "plots"]
    assert (into / "semantic.png").exists()


def test_another_bundle_or_an_unknown_section_is_told(tmp_path):
    made(tmp_path / "a", "drift")
    made(tmp_path / "b", "drift", bundle="piano@2")
    with pytest.raises(InputError, match="holds the report of piano@1, not of piano@2"):
        call("join", tmp_path / "a", tmp_path / "b")
    with pytest.raises(InputError, match="has no section 'drfit'; it has drift"):
        call("join", tmp_path / "a", tmp_path / "b", "--section", "drfit")


def test_a_report_to_keep_is_three_files_without_loose_plots(tmp_path):
    made(tmp_path / "r", "drift", value=0.25)
    said = call("page", tmp_path / "r", "--to", tmp_path / "docs" / "piano")
    assert sorted(path.name for path in (tmp_path / "docs").iterdir()) == ["piano.html", "piano.json", "piano.md"]
    assert "piano.html: 0.0" in said
    text = (tmp_path / "docs" / "piano.md").read_text()
    assert text.startswith("# piano: does it model sound?")
    assert "drift.png" not in text
    both = compare.compare(compare.read(tmp_path / "r"), compare.read(tmp_path / "docs" / "piano.json"))
    assert (both.different, both.only) == ([], {"A": [], "B": []})
