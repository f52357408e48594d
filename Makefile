# Fresh machine: `make demo` and `make test` need Python 3.11+ with venv, make and a package index; nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
TRUTH := runs/grand-piano-truth

.PHONY: demo test check lint types docs setup clean

setup: $(READY)

# uv is installed into the environment when there is none on the PATH.
$(READY): pyproject.toml constraints.txt overrides.txt
	$(PYTHON) -m venv $(VENV)
	command -v uv >/dev/null || $(BIN)/python -m pip install --quiet uv
	PATH="$$PATH:$(BIN)" uv pip install --python $(BIN)/python --quiet --compile-bytecode --editable . \
		--group dev --group oracle --constraint constraints.txt --override overrides.txt
	touch $@

# The truth set is for reporting only: scenes from seeds that nothing else uses.
# `make runs/rubber-duck-truth/data.yaml` makes the one of configs/demo-rubber-duck.json.
runs/%-truth/data.yaml: | $(READY)
	$(BIN)/python -m diffugen.toyworld.scenes_dataset --out runs/$*-truth --num 300 --seed 770000 \
		--classes $*,car,tent --rare $*

# One thread: two that wait for each other take longer for networks this small (docs/log.md).
demo: $(READY) $(TRUTH)/data.yaml
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python train_loop.py configs/demo.json

# A process per core, each with one thread: threads that wait for each other would only slow both down.
test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q --numprocesses auto --dist worksteal

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

# The site, in site/; fails on a broken link.
docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet

check: lint types docs test

clean:
	rm -rf $(VENV) runs site .training
