"""The reports of the shipped bundles in docs/reports: small, whole, and asking nobody for anything."""

import json
import re
from pathlib import Path

import pytest

from audiolm.bundle import shipped

ROOT = Path(__file__).parent.parent
REPORTS = sorted((ROOT / "docs" / "reports").glob("*.json"))


@pytest.mark.parametrize("path", REPORTS, ids=lambda path: path.stem)
def test_a_shipped_bundles_report_is_small_and_whole(path):
    assert path.stem in shipped()
    page, text = path.with_suffix(".html"), path.with_suffix(".md")
    assert sum(each.stat().st_size for each in (path, page, text)) < 600_000
    report = json.loads(path.read_text(encoding="utf8"))
    assert report["bundle"].startswith(f"{path.stem}@")
    html = page.read_text(encoding="utf8")
    assert all(f'id="{name}"' in html for name in report["sections"])
    assert "<audio" not in html  # recordings are not kept in the repository
    assert all(source.startswith(("data:", "#")) for source in re.findall(r'(?:src|href)="([^"]*)"', html))
    assert ("/" + "root/") not in html + text.read_text(encoding="utf8") + json.dumps(report)
    assert ("/" + "tmp/") not in html + text.read_text(encoding="utf8") + json.dumps(report)
