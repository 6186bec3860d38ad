"""What docs/extend.md tells people to write works as it stands there."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent


def test_the_examples_of_the_documentation_run_together(tmp_path: Path):
    text = (REPOSITORY / "docs" / "extend.md").read_text()
    files = re.findall(r'```(?:python|yaml) title="(.+?)"\n(.+?)```', text, flags=re.S)
    assert len(files) == 8
    for name, content in files:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    (command,) = re.findall(r"PYTHONPATH=\. python unlearn\.py (.+)", text)
    script = str(REPOSITORY / "unlearn.py")
    variables = {"PYTHONPATH": str(tmp_path), "UNLEARN_HOME": str(tmp_path / "outputs")}
    result = subprocess.run(
        [sys.executable, script, *shlex.split(command), "model.width=2", "pretraining.epochs=2"],
        cwd=tmp_path, env=os.environ | variables, capture_output=True, text=True, timeout=300,
        check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    (path,) = tmp_path.glob("outputs/results/*/row-0.json")
    row = json.loads(path.read_text())
    chosen = [row[key] for key in ("method", "dataset", "corruption", "status")]
    assert chosen == ["mine", "stripes", "swap", "ok"]
    assert 0 <= row["confident"] <= 1
