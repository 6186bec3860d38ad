"""Compare the rows of two results folders bit by bit: ``python -m benchmarks.compare_rows OLD NEW``.

For a change that must not move a number: run the same commands before and after it, each with its own
``UNLEARN_HOME``, then compare ``results`` of both. Ids, times, memory and versions are left out.
"""

import json
import sys
from pathlib import Path
from typing import Any

KEYS = ("method", "corruption", "discovery", "seed", "step", "dataset", "model")
LEFT_OUT = ("run_id", "seconds", "peak_bytes", "revision", "created", "images_per_second")
LEFT_OUT += ("format", "sha256")


def read_rows(folder: Path) -> dict[tuple[Any, ...], dict[str, Any]]:
    """Return the rows of a results folder by task, method and seed, without what may differ."""
    rows = {}
    for path in sorted(folder.glob("*/row-*.json")):
        row = json.loads(path.read_text())
        rows[tuple(row.get(key) for key in KEYS)] = {
            key: value
            for key, value in row.items()
            if not key.startswith(("config/", "versions/"))
            and key not in LEFT_OUT
            and not key.endswith("seconds")
        }
    return rows


def main() -> int:
    """Print each difference; return 1 if there is one."""
    old, new = (read_rows(Path(folder)) for folder in sys.argv[1:3])
    different = [f"only in one folder: {key}" for key in sorted(set(old) ^ set(new), key=str)]
    for key in sorted(set(old) & set(new), key=str):
        columns = sorted(set(old[key]) | set(new[key]))
        changed = [c for c in columns if old[key].get(c) != new[key].get(c)]
        different += [f"{key}: {c}: {old[key].get(c)} -> {new[key].get(c)}" for c in changed]
    values = sum(len(row) for row in old.values())
    print("\n".join([*different, f"{len(old)} rows, {values} values, {len(different)} differ"]))
    return int(bool(different))


if __name__ == "__main__":
    sys.exit(main())
