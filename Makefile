# Two commands for a fresh machine with Python 3.11 or newer and nothing else:
#   make simulate    install, then compare codecs on the embedded data set (two minutes); the runs
#                    stay in runs/first, and one that was stopped goes on where it was
#   make test        install, then everything that CI runs
# More of what CI runs a little of: make test-all, and a million damaged frames by make attack
# (COUNT=... and SEED=... for more of them, or others).
# Both keep to a virtual environment in .venv.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
OUT    ?= runs/first
COUNT  ?= 1000000
SEED   ?= 1
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: simulate test test-all attack check format clean

simulate: $(VENV)/.simulation
	$(BIN)/flowerpress compare --task digits --codecs "none,int8,stc,fedzip" --seeds 3 \
		--rounds 30 --workers 2 --out $(OUT)

test: check
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow"

test-all: check
	$(BIN)/python -m pytest

attack: $(VENV)/.dev
	$(BIN)/python -m tests.hostile.mutate --count $(COUNT) --seed $(SEED)
	$(BIN)/python -m tests.hostile.bombs

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(BIN)/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and "flowerpress needs Python 3.11 or newer, this is %d.%d; try make PYTHON=python3.11" % v[:2])'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.simulation: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing into $(VENV); this takes a minute or two the first time."
	$(PIP) -e ".[simulation]"
	touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing into $(VENV) with the tools for development."
	$(PIP) -e ".[simulation,tracking,dev]"
	touch $@ $(VENV)/.simulation
