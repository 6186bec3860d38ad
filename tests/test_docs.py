"""The documentation site builds without a warning; every method has its page; nothing is fetched."""

import os
import re
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent


def test_the_site_builds_strictly_and_stands_alone(tmp_path: Path):
    site = tmp_path / "site"
    result = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(site)],
        cwd=REPOSITORY, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    names = {p.stem for p in (REPOSITORY / "conf" / "method").glob("*.yaml")}
    assert {p.stem for p in (site / "methods").glob("*.html")} == names | {"index"}
    page = (site / "methods" / "npo.html").read_text()
    assert "strength of the tie to the original" in page  # from the YAML
    assert "2404.05868" in page  # from the docstring
    for path in site.rglob("*.html"):
        loaded = re.findall(
            r'<(?:script|link|img)[^>]+(?:src|href)="(https?://[^"]+)"', path.read_text()
        )
        assert loaded == [], path
