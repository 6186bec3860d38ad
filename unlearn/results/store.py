"""Where rows are kept: one folder per run, the row file written last, by rename.

``results.jsonl`` beside the folders mirrors all rows for one-line reading:
``pandas.read_json("outputs/results/results.jsonl", lines=True)``. The row files are the truth; a
mirror that lacks a row, or has a torn line, is rebuilt from them.
"""

import json
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import FileLock

from unlearn.results.record import RunRecord

log = logging.getLogger(__name__)

RUN_ID = re.compile(r"[0-9a-z-]{6,64}")


class ResultsStore:
    """Many processes may write at once; no row is lost or doubled."""

    def __init__(self, root: Path):
        """Keep the folder; it is made with the first row."""
        self.root = root
        self.mirror = root / "results.jsonl"

    def folder(self, run_id: str) -> Path:
        """Return the folder of a run.

        Raises:
            ValueError: If the id could lead elsewhere.
        """
        if not RUN_ID.fullmatch(run_id):
            raise ValueError(f"run_id must match {RUN_ID.pattern}, got {run_id!r}")
        return self.root / run_id

    def done(self, run_id: str, steps: int = 1) -> bool:
        """Say whether the rows of all steps are there."""
        folder = self.folder(run_id)
        return all((folder / f"row-{step}.json").exists() for step in range(steps))

    def write(self, record: RunRecord) -> None:
        """Store a row; a row of the same run and step is replaced."""
        folder = self.folder(record.run_id)
        folder.mkdir(parents=True, exist_ok=True)
        row = record.flat()
        path = folder / f"row-{record.step}.json"
        replaced = path.exists()
        _replace(path, json.dumps(row, indent=1) + "\n")
        (folder / "error.txt").unlink(missing_ok=True)
        with self._lock():
            if replaced:
                self._rebuild()
            else:
                self._append(json.dumps(row) + "\n")

    def _lock(self) -> FileLock:
        return FileLock(self.root / ".results.lock")

    def _append(self, line: str) -> None:
        with self.mirror.open("ab+") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":  # a killed writer left half a line
                    self._rebuild()
                    return
            file.write(line.encode())

    def _rebuild(self) -> None:
        rows = [json.dumps(row) + "\n" for row in self._rows()]
        _replace(self.mirror, "".join(rows))

    def _rows(self) -> Iterator[dict[str, Any]]:
        for path in sorted(self.root.glob("*/row-*.json")):
            try:
                yield json.loads(path.read_text())
            except ValueError:
                log.warning("left out: broken row file %s", path)

    def read(self, run_id: str) -> list[dict[str, Any]]:
        """Return the rows of one run, by step."""
        paths = sorted(self.folder(run_id).glob("row-*.json"))
        return [json.loads(path.read_text()) for path in paths]

    def load(self, **equal_to: Any) -> pd.DataFrame:
        """Return all rows whose columns equal the given values, and mend the mirror.

        Raises:
            ValueError: If a column does not exist.
        """
        rows = list(self._rows())
        self._mend(rows)
        frame = pd.DataFrame(rows)
        for column, value in equal_to.items():
            if column not in frame:
                raise ValueError(f"no column '{column}' in the results of {self.root}")
            values = value if isinstance(value, list) else [value]
            frame = frame[frame[column].isin(values)]
        return frame.reset_index(drop=True)

    def _mend(self, rows: list[dict[str, Any]]) -> None:
        if not rows:
            return
        with self._lock():
            try:
                mirrored = [json.loads(line) for line in self.mirror.read_text().splitlines()]
            except (OSError, ValueError):
                mirrored = []
            order = {(r["run_id"], r["step"]): r for r in mirrored}
            known = [order.get((r["run_id"], r["step"])) for r in rows]
            if known != rows or len(mirrored) != len(rows):
                self._rebuild()

    def write_failure(self, run_id: str, text: str) -> Path:
        """Keep the traceback of a run that broke; a later success removes it."""
        path = self.folder(run_id) / "error.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        _replace(path, text)
        return path

    def failures(self) -> dict[str, str]:
        """Return the last line of each broken run's traceback, by run id."""
        found = sorted(self.root.glob("*/error.txt"))
        return {p.parent.name: (p.read_text().strip().splitlines() or [""])[-1] for p in found}


def _replace(path: Path, text: str) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
