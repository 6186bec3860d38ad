"""The cache of decoded images: hits, torn files, two processes."""

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from unlearn.data.datasets.image_cache import load_or_make


def test_a_broken_cache_file_is_rebuilt(tmp_path, caplog):
    assert load_or_make(tmp_path, "k", lambda: {"a": 1}) == {"a": 1}
    assert load_or_make(tmp_path, "k", lambda: {"a": 2}) == {"a": 1}
    (tmp_path / "k.pt").write_bytes(b"torn")
    assert load_or_make(tmp_path, "k", lambda: {"a": 3}) == {"a": 3}
    assert "broken cache file" in caplog.text


def _make_slowly(root: str) -> int:
    import os
    import time

    def make():
        time.sleep(0.3)
        with open(f"{root}/made", "a") as file:
            file.write("x")
        return {"pid": os.getpid()}

    return load_or_make(Path(root), "k", make)["pid"]


def test_two_processes_make_it_once(tmp_path):
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        pids = list(pool.map(_make_slowly, [str(tmp_path)] * 2))
    assert pids[0] == pids[1]
    assert (tmp_path / "made").read_text() == "x"
