"""A command imports only what it needs, and leaves Python as it was."""

import subprocess
import sys


def run_code(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr, done.stderr
    return done.stdout.strip()


def test_a_run_imports_no_tables_and_no_statistics():
    unneeded = {"pandas", "scipy.signal", "scipy.stats", "scipy.optimize"}
    found = run_code(
        "import gc, sys\n"
        "from unlearn.core.imports import import_quickly\n"
        "with import_quickly():\n    import unlearn.pipeline.unlearn_job\n"
        f"print(sorted({unneeded} & set(sys.modules)), gc.isenabled())\n"
        "import scipy.signal\n"
        "print(scipy.signal.find_peaks([0, 1, 0])[0])"
    )
    assert found.splitlines() == ["[] True", "[1]"]


def test_scipy_signal_is_imported_when_it_is_used():
    found = run_code(
        "import sys\n"
        "from unlearn.core.imports import import_quickly\n"
        "with import_quickly():\n"
        "    import scipy.signal\n"
        "    print(hasattr(scipy.signal, 'hamming'), 'scipy.signal._signaltools' in sys.modules)\n"
        "    from scipy.signal import find_peaks\n"
        "    import scipy.signal.windows\n"
        "print(scipy.signal.windows.hamming(1), find_peaks([0, 1, 0])[0])\n"
        "print(sys.modules['scipy.signal'].find_peaks is find_peaks)"
    )
    assert found.splitlines() == ["True False", "[1.] [1]", "True"]
