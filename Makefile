# Each target works on a bare machine with Python 3.11 or newer.
PYTHON ?= python3
# Another index for torch, e.g. https://download.pytorch.org/whl/cpu
TORCH_INDEX ?=
VENV := .venv
PIP := $(VENV)/bin/pip --disable-pip-version-check install --quiet --constraint constraints.txt

.PHONY: setup demo test test-all lint docs

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch
	$(PIP) --editable .
	@touch $@

$(VENV)/.tested: $(VENV)/.installed
	$(PIP) --editable '.[test]'
	@touch $@

demo: setup
	$(VENV)/bin/lumifield synthesize-data still-life --out demo/still-life
	$(VENV)/bin/lumifield train instant --data demo/still-life --minutes 1.5 --out demo/run
	$(VENV)/bin/lumifield eval demo/run
	$(VENV)/bin/lumifield render demo/run --path orbit --out demo/orbit.mp4
	$(VENV)/bin/lumifield export mesh demo/run --texture-size 1024 --num-faces 20000 --no-keep-unseen --out demo/mesh.glb
	$(VENV)/bin/lumifield export web demo/run --out demo/scene.html
	@echo "Look at demo/orbit.mp4, demo/scene.html, demo/mesh.glb and demo/run/eval/test/report.html"

lint: $(VENV)/.tested
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/pyright
	$(VENV)/bin/lint-imports

# One thread in each of the two processes: threads that wait for a core take several times as long.
PYTEST := OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 $(VENV)/bin/pytest --quiet --numprocesses 2 --durations=10

test: lint
	$(PYTEST) -m "not slow"

test-all: lint
	$(PYTEST)

$(VENV)/.documented: $(VENV)/.installed
	$(PIP) --editable '.[docs]'
	@touch $@

# Builds the site in build/site with all links checked, then checks the commands and options in the pages.
docs: $(VENV)/.documented $(VENV)/.tested
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict --quiet
	$(VENV)/bin/pytest --quiet tests/contracts/test_docs.py
	@echo "Open build/site/index.html"
