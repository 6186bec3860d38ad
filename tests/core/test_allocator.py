"""Freed buffers are given back to the system."""

import os
import subprocess
import sys

import pytest

CODE = """
import sys
from unlearn.core.allocator import return_large_buffers

def measure():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("RssAnon"))

if sys.argv[1] == "yes" and not return_large_buffers():
    sys.exit("other C library")
before = measure()
for _ in range(3):  # the first makes glibc keep later ones of its size
    bytearray(b"1" * (16 * 2**20))
print(measure() - before)
"""


def measure_kept(option: str) -> int:
    """Return the kB that a process keeps after it has freed buffers of 16 MiB."""
    done = subprocess.run([sys.executable, "-c", CODE, option], capture_output=True, text=True)
    if "other C library" in done.stderr or "/proc/self" in done.stderr:
        pytest.skip("needs glibc on Linux")
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_freed_buffers_are_given_back():
    assert measure_kept("yes") < 4096


def test_huge_pages_can_be_switched_off():
    code = (
        "import os, sys\n"
        "os.environ.update(dict([sys.argv[1].split('=')]))\n"
        "from unlearn.core.allocator import use_huge_pages\n"
        "use_huge_pages()\n"
        "print(os.environ['THP_MEM_ALLOC_ENABLE'])"
    )
    for given, used in (("OTHER=0", "1"), ("THP_MEM_ALLOC_ENABLE=0", "0")):
        command = [sys.executable, "-c", code, given]
        env = {k: v for k, v in os.environ.items() if k != "THP_MEM_ALLOC_ENABLE"}
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
        assert done.stdout.strip() == used
