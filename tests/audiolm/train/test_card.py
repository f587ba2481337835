"""The card: its sections come from the runs, and its limits from the numbers."""

import re

import pytest

from audiolm.train.card import LEGEND, Runs, card, write_card

LOG = [{"step": s, "minutes": s / 50, "nll": 4 - s / 200, "dev_nll": 3.5, "steps_per_second": 2.5} for s in (50, 100)]
GOOD = {
    "likelihoods": {
        "semantic": {"nll": 2.0, "unigram": 3.0},
        "coarse": {"nll": 2.0, "unigram": 3.0, "unconditioned": 2.4},
        "fine": {"nll": 2.0, "unigram": 3.0, "unconditioned": 2.4},
    },
    "reconstruction": {"log_mel_distance": {"2": 0.7, "6": 0.6}, "perplexity": [31, 30, 29, 28, 27, 26]},
}
HOURS = {
    "summary": "taken: 9 files, 150 h\nrefused, silent: 1\n",
    "splits": {"train": {"hours": 140.0}, "dev": {"hours": 2.0}},
}


@pytest.fixture
def runs(tiny_model):
    """`runs(**changes)`: of a model that is good at everything, unless changed."""

    def make(**changes):
        known = {
            "parts": tiny_model,
            "about": "Made in a test.",
            "command": "audiolm train all --data sounds --out tiny",
            "licences": "CC0, by nobody",
            "dtypes": {"codec": "fp16", "fine": "int8"},
            "prepare": HOURS,
            "ears": {"layer": 1, "clusters": 24},
            "measure": GOOD,
            "crops": {"semantic": 4.0, "coarse": 2.0, "fine": 1.0},
            "seconds": {"prepare": 30.0, "coarse": 120.0},
            "logs": {"coarse": LOG},
        }
        return Runs(**(known | changes))

    return make


def test_every_section_is_there_and_filled(runs):
    text = card(runs())
    assert text.startswith("# tiny\n\nMade in a test.\n")
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == [
        "What is inside",
        "Data",
        "Licences and attributions",
        "Training",
        "Layer and clusters",
        "Measured on held-out sound",
        "Known limits",
        "How it was made",
    ]
    assert "| codec | SoundStream (seanet), 6 levels of 32, 50 Hz, 1.5 kbit/s | 0.0" in text
    assert "- refused, silent: 1\n" in text
    assert "CC0, by nobody" in text
    assert "| coarse | 2.0 | 100 | 2.5 |" in text
    assert "| 2.0 | 100 | 3.5 | 3.5 |" in text
    assert "| coarse | 2.0 | 3.0 | 2.4 |" in text
    assert "Layer 1, 24 clusters." in text
    assert "```bash\naudiolm train all --data sounds --out tiny\n```" in text
    assert "audiolm-streamer " in text


def test_a_good_model_has_no_limits_but_its_rate(runs):
    limits = card(runs()).partition("## Known limits\n\n")[2].partition("\n## ")[0].strip()
    assert limits == "- Mono at 16 kHz: nothing above 8 kHz is heard or made."


def test_limits_follow_from_the_numbers(runs):
    weak = {name: dict.fromkeys(row, 3.0) for name, row in GOOD["likelihoods"].items()}
    rising = [{"step": i, "minutes": i, "dev_nll": value} for i, value in enumerate((3.0, 2.0, 2.5), 1)]
    text = card(
        runs(
            measure={
                "likelihoods": weak,
                "reconstruction": GOOD["reconstruction"] | {"perplexity": [31, 8, 30, 2, 30, 30]},
            },
            prepare={"splits": {"train": {"hours": 1.5}, "dev": {"hours": 0.1}}},
            crops={"semantic": 3.0, "coarse": 2.0, "fine": 1.0},
            logs={"fine": rising},
        )
    )
    assert "It has heard 1.50 h of sound" in text
    assert "The held-out figures rest on 6.0 minutes of sound." in text
    assert "Codebooks of level 2, 4 use less than 60 %" in text
    assert text.count("is hardly better than a unigram") == 3
    assert text.count("hardly listens to it") == 2
    assert "The fine stage over-fitted before its run ended" in text
    assert "The semantic stage saw crops of 3.0 s, less than twice its window of 2 s" in text


def test_missing_licences_are_said(runs):
    assert "None were given (`--licences FILE`" in card(runs(licences="  \n"))


def test_the_sweep_is_a_table_with_the_choice_in_bold(runs, tmp_path):
    sweep = [
        {"layer": 0, "clusters": 24, "tokens_within": 0.3, "chroma": None},
        {"layer": 1, "clusters": 24, "tokens_within": 0.25, "chroma": None},
    ]
    (tmp_path / "sweep.png").touch()
    write_card(runs(ears={"layer": 1, "clusters": 24, "sweep": sweep}, logs={}), tmp_path)
    section = (tmp_path / "CARD.md").read_text().partition("## Layer and clusters\n\n")[2].partition("\n## ")[0]
    assert section.splitlines() == [
        "| layer | clusters | tokens within |",
        "| --- | --- | --- |",
        "| 0 | 24 | 0.300 |",
        "| **1** | **24** | **0.250** |",
        "",
        f"Layer 1, 24 clusters, the row in bold. {LEGEND}.",
        "",
        "![Layer and clusters](sweep.png)",
    ]


def test_nothing_known_still_makes_a_card(runs, tmp_path):
    empty = runs(prepare={}, ears={}, measure={}, crops={}, seconds={}, logs={}, about="", command="")
    write_card(empty, tmp_path)
    text = (tmp_path / "CARD.md").read_text()
    assert "## What is inside" in text
    assert "## Data" not in text
    assert [path.name for path in tmp_path.iterdir()] == ["CARD.md"]


def test_the_picture_stands_beside_the_card(runs, tmp_path):
    pytest.importorskip("matplotlib")
    write_card(runs(), tmp_path)
    assert "![Training](curves.png)" in (tmp_path / "CARD.md").read_text()
    assert (tmp_path / "curves.png").is_file()
