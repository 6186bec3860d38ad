"""Storage of rows: one folder per run, the row file written last, by rename.

``results.jsonl`` beside the folders mirrors all rows for one-line reading:
``pandas.read_json("outputs/results/results.jsonl", lines=True, dtype=False)``, where ``dtype``
keeps pandas from reading ids of digits as numbers. The row files are authoritative. The mirror gets
a row first, so no recorded run is missing in the mirror, and an intact line restores a row file that
is broken or was lost; see ``row_files``. Torn or duplicate lines, and lines of runs whose folder was
removed, are repaired with the next row or table.
"""

import difflib
import json
import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unlearn.core.files import write_text_atomically
from unlearn.core.job import ID_FORMAT
from unlearn.storage.record import RunRecord
from unlearn.storage.row_files import (
    MIRROR,
    format_row,
    lock_store,
    read_rows,
    seal_row,
    settle_rows,
    unseal_row,
)
from unlearn.storage.run_errors import read_last_line

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)

OLDER_ID = re.compile(rf"r[0-9a-f]{{12}}|r[1-{ID_FORMAT - 1}]-[0-9a-f]{{12}}")
"""Ids of formats before ``ID_FORMAT``; those of format 1 have no number."""

RUN_ID = re.compile(r"[0-9a-z-]{6,64}")


class ResultsStore:
    """Stores rows, safe for concurrent writers: no row is lost or duplicated."""

    def __init__(self, root: Path) -> None:
        """Store the folder, which is created with the first row."""
        self.root = root
        self.mirror = root / MIRROR

    def run_folder(self, run_id: str) -> Path:
        """Return the folder of a run, existing or not.

        Raises:
            ValueError: If the id could point outside of the store.
        """
        if not RUN_ID.fullmatch(run_id):
            raise ValueError(f"run_id must match ^{RUN_ID.pattern}$, got {run_id!r}")
        return self.root / run_id

    def is_recorded(self, run_id: str, steps: int = 1) -> bool:
        """Return whether the rows of all steps are present and complete.

        Args:
            run_id: Of the run.
            steps: Number of requests of the run, 1 or more.
        """
        return {row["step"] for row in self.read_rows(run_id)} >= set(range(steps))

    def write(self, record: RunRecord) -> None:
        """Store a row, replacing one of the same run and step.

        Raises:
            ValueError: If the run's id or a value is not allowed.
        """
        folder = self.run_folder(record.run_id)
        row = seal_row(record.to_row())
        folder.mkdir(parents=True, exist_ok=True)
        # The row file is made under the lock too: else another process could rebuild the mirror
        # with this row in it before the row is appended, and the mirror would hold it twice.
        with lock_store(self.root, f"record run {record.run_id}"):
            settle_rows(folder)  # a broken file is kept under another name, not replaced
            before = self.mirror.read_bytes() if self.mirror.exists() else b""
            start = json.dumps({k: row[k] for k in ("run_id", "step")})[:-1] + ","
            grows = start.encode() not in before and before[-1:] in (b"", b"\n")
            try:
                if grows:
                    self._append_row(row)
                else:
                    self._rebuild_mirror(row)
                (folder / "error.txt").unlink(missing_ok=True)
                write_text_atomically(folder / f"row-{record.step}.json", format_row(row))
            except BaseException:  # full disk or Ctrl-C: half a line, or a line without its row
                if grows and self.mirror.exists():
                    os.truncate(self.mirror, len(before))
                raise

    def add_columns(
        self, values: Mapping[tuple[str, int], Mapping[str, float | int | bool | str | None]]
    ) -> None:
        """Add columns to recorded rows; other columns stay as they are.

        Args:
            values: New columns by run id and step; a row that is not recorded is left out.
        """
        with lock_store(self.root, "add columns to recorded rows"):
            for (run_id, step), columns in values.items():
                folder = self.run_folder(run_id)
                rows = {row["step"]: row for row in settle_rows(folder)}
                if step in rows:
                    row = seal_row(unseal_row(rows[step]) | dict(columns))
                    write_text_atomically(folder / f"row-{step}.json", format_row(row))
            self._rebuild_mirror()

    def write_failure(self, run_id: str, message: str) -> Path:
        """Store the traceback of a failed run; a later success removes it.

        Returns:
            The file ``error.txt`` in the run's folder.
        """
        path = self.run_folder(run_id) / "error.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        with lock_store(self.root, f"record the failure of run {run_id}"):
            write_text_atomically(path, message)
        return path

    def read_rows(self, run_id: str) -> list[dict[str, Any]]:
        """Return the rows of one run by step, without broken ones; see ``row_files``."""
        return [unseal_row(row) for row in read_rows(self.run_folder(run_id))]

    def load(self, **equal_to: object) -> "pd.DataFrame":
        """Return all rows whose columns equal the given values, and repair the mirror if possible.

        Args:
            equal_to: Value by column, or a list of alternatives; None stands
                for an absent value.

        Raises:
            ValueError: If a column does not exist.
        """
        import pandas as pd  # 22 MB that a run does not need

        rows = [row for folder in self._list_folders() for row in read_rows(folder)]
        self._repair_mirror(rows)
        older = len({row["run_id"] for row in rows if OLDER_ID.fullmatch(row["run_id"])})
        if older:
            log.warning(
                "%s has runs with ids of an older format (%d): kept in tables, but the same commands "
                "run again under new ids", self.root, older,
            )  # fmt: skip
        frame = pd.DataFrame([unseal_row(row) for row in rows])
        if frame.empty:
            return frame
        for column, value in equal_to.items():
            if column not in frame:
                near = difflib.get_close_matches(column, list(frame.columns), n=3)
                hint = f"; nearest: {', '.join(near)}" if near else ""
                raise ValueError(f"no column '{column}' in the results of {self.root}{hint}")
            values = list(value) if isinstance(value, list | tuple) else [value]
            wanted = frame[column].isin([v for v in values if v is not None])
            if None in values:
                wanted |= frame[column].isna()
            frame = frame[wanted]
        return frame.reset_index(drop=True)

    def read_failures(self) -> dict[str, str]:
        """Return the last line of each failed run's traceback, by run id."""
        lines = {}
        for path in sorted(self.root.glob("*/error.txt")):
            lines[path.parent.name] = read_last_line(path)
        return lines

    def _list_folders(self) -> list[Path]:
        """Return the folders of runs; a results folder of another kind has none."""
        return [path for path in sorted(self.root.glob("*/")) if RUN_ID.fullmatch(path.name)]

    def _append_row(self, row: dict[str, Any]) -> None:
        with self.mirror.open("ab") as file:
            file.write((json.dumps(row) + "\n").encode())

    def _rebuild_mirror(self, newest: dict[str, Any] | None = None) -> None:
        """Rewrite the mirror from the row files and the newest row, under the lock."""
        found = [row for folder in self._list_folders() for row in settle_rows(folder)]
        rows = _index_rows([*found, *([newest] if newest else [])])
        write_text_atomically(self.mirror, "".join(json.dumps(row) + "\n" for row in rows.values()))

    def _repair_mirror(self, rows: list[dict[str, Any]]) -> None:
        if self._read_mirror() == _index_rows(rows):
            return
        try:
            with lock_store(self.root, f"repair {MIRROR}"):
                self._rebuild_mirror()
        except OSError as error:  # a read-only store; its row files are read all the same
            log.warning("%s differs from the rows and is not repaired: %s", self.mirror, error)

    def _read_mirror(self) -> dict[tuple[str, int], dict[str, Any]] | None:
        """Return the mirror's rows, or None if a line is torn or duplicate."""
        try:
            lines = self.mirror.read_text().splitlines() if self.mirror.exists() else []
            rows = [json.loads(line) for line in lines]
            found = _index_rows(rows)
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            return None
        return found if len(found) == len(rows) else None


def _index_rows(rows: list[dict[str, Any]]) -> dict[tuple[str, int], dict[str, Any]]:
    return {(row["run_id"], row["step"]): row for row in rows}
