# Every target works on a fresh clone: it makes .venv and installs first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test test-numeric test-all lint format bench gpu stories docs clean

demo: $(STAMP)
	@PATH="$(CURDIR)/$(BIN):$$PATH" sh sweeps/demo.sh

test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 -m "not slow and not gpu"

# What rounding can touch, as a CPU without vector units and one without AVX-512 compute it.
test-numeric: $(STAMP)
	ATEN_CPU_CAPABILITY=default OMP_NUM_THREADS=2 $(BIN)/python -m pytest -q -n 0 -m "numeric and not slow and not gpu"
	ONEDNN_MAX_CPU_ISA=AVX2 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 -m "numeric and not slow and not gpu"

test-all: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP)
	$(BIN)/python -m benchmarks

# Nine minutes of one GPU; the next call goes on. GPU="device=cpu scale=small" shows the same steps anywhere.
gpu: $(STAMP)
	@$(BIN)/python -m benchmarks.gpu $(GPU)

# Hours: users' stories with planted truth; STORY_DATA names a folder of images per class.
stories: $(STAMP)
	@PATH="$(CURDIR)/$(BIN):$$PATH" PYTHONPATH="$(CURDIR)" sh sweeps/stories/all.sh

docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "open site/index.html"

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache dist site

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, $(PYTHON) is " + sys.version.split()[0] + "; say make PYTHON=/path/to/python3.11" if sys.version_info < (3, 11) else 0)'
	@echo "installing into $(VENV): a few minutes, once"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test]'
	@touch $(STAMP)
