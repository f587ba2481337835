"""The report: goals, JSON without NaN, resumption, the model card."""

import json

import pytest

from audiolm.errors import InputError
from audiolm.eval import report as reports
from audiolm.eval.report import Goal, Section
from audiolm.eval.stats import estimate

NAN = float("nan")


def section(name="reconstruction", value=1.5):
    made = Section(name, name.title(), {"x": {4: estimate([value, value + 1])}, "missing": NAN})
    made.table("A table", ["what", "value", "estimate"], [["one", value, estimate([value])], ["none", None, NAN]])
    made.goals.append(Goal(f"{name} good", value, above=1.0))
    made.notes.append("A note.")
    return made


def strict(path):
    """JSON as others read it: NaN is an error."""
    return json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} in the JSON"))


@pytest.mark.parametrize(
    ("goal", "met"),
    [
        (Goal("a", 2.0, above=1.0), True),
        (Goal("a", 1.0, above=1.0), False),
        (Goal("a", 1.0, above=0.9, below=1.1), True),
        (Goal("a", 1.2, above=0.9, below=1.1), False),
        (Goal("a", NAN, above=0.0), False),
        (Goal("a", NAN, below=1.0), False),
    ],
)
def test_a_goal_is_met_or_not(goal, met):
    assert goal.met is met


def test_sections_come_together_in_one_report_in_the_usual_order(tmp_path):
    reports.add(tmp_path, section("drift"), bundle="x@1", command="audiolm eval drift x")
    report = reports.add(tmp_path, section(), bundle="x@1", settings={"seed": 1, "share": 0.1 + 0.2})
    assert list(report["sections"]) == ["reconstruction", "drift"]
    assert report == strict(tmp_path / "report.json") == reports.read(tmp_path)
    figures = report["sections"]["drift"]["figures"]
    assert figures["x"]["4"]["mean"] == 2.0
    assert figures["missing"] is None
    assert report["versions"]["torch"]
    text = (tmp_path / "report.md").read_text()
    assert text.index("### Reconstruction") < text.index("### Drift")
    assert "| drift good | 1.50 | above 1.00 | yes |" in text
    assert "| one | 1.50 | 1.50 (1.50 to 1.50) |" in text
    assert "`audiolm eval drift x`" in text


def test_what_was_measured_so_is_known(tmp_path):
    settings = {"seed": 1, "data": ["a"], "share": 0.1 + 0.2}
    report = reports.add(tmp_path, section(), bundle="x@1", settings=settings)
    assert reports.made_with(report, "reconstruction", settings)
    assert not reports.made_with(report, "reconstruction", settings | {"seed": 2})
    assert not reports.made_with(report, "drift", settings)


def test_reports_of_two_bundles_are_not_mixed(tmp_path):
    reports.add(tmp_path, section(), bundle="x@1")
    with pytest.raises(InputError, match="report of x@1, not of x@2; give another --out"):
        reports.add(tmp_path, section("drift"), bundle="x@2")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"sections": {"a": {}}}', '{"sections": {"a": 3}}', "nonsense"])
def test_a_damaged_report_is_told(tmp_path, text):
    (tmp_path / "report.json").write_text(text)
    with pytest.raises(InputError, match="no report of audiolm eval"):
        reports.read(tmp_path)


def test_a_place_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="give another --out"):
        reports.add(tmp_path / "file" / "out", section(), bundle="x@1")


def test_the_card_keeps_its_own_words_and_the_newest_report(tmp_path):
    card = tmp_path / "CARD.md"
    card.write_text("# piano\n\nOurs.\n")
    reports.into_card(reports.add(tmp_path / "r", section(value=1.5), bundle="x@1"), card)
    card.write_text(card.read_text() + "\n## Known limits\n\nSome.\n")
    reports.into_card(reports.add(tmp_path / "r", section(value=0.5), bundle="x@1"), card)
    text = card.read_text()
    assert text.startswith("# piano\n\nOurs.\n")
    assert text.endswith("## Known limits\n\nSome.\n")
    assert text.count(reports.BEGIN) == text.count(reports.END) == 1
    assert "| reconstruction good | 0.500 | above 1.00 | no |" in text
    again = text
    reports.into_card(reports.read(tmp_path / "r"), card)
    assert card.read_text() == again
