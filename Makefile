# Every verb of the project. `make` alone lists them. Needs Python 3.11, pip and make, nothing else.

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

# Two OpenMP threads beside a busy neighbour are slower than one, and the processes already use the cores.
export OMP_NUM_THREADS ?= 1
export OMP_WAIT_POLICY ?= PASSIVE

.DEFAULT_GOAL := help
.PHONY: help install demo test thorough cluster bench lint format protos lock clean

help:  ## list what there is
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(INSTALLED)  ## create .venv with exactly the versions of requirements.lock

$(INSTALLED): pyproject.toml requirements.lock
	@command -v $(PYTHON) > /dev/null || { \
	  echo "There is no $(PYTHON). Install Python 3.11, or name yours: make PYTHON=/path/to/python3.11 ..."; exit 1; }
	@echo "Installing the project and what it needs into $(VENV), versions as in requirements.lock."
	@echo "The first time this takes a few minutes; later only when pyproject.toml or the lock has changed."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check --constraint requirements.lock --editable '.[dev]'
	@touch $@
	@echo "Installed."

demo: $(INSTALLED)  ## finetune the embedded generator, show that it got better (under 6 minutes on 2 cores)
	@$(BIN)/drpo demo

test: $(INSTALLED)  ## unit and integration tests, with coverage (at most 12 minutes on 2 cores)
	@echo "Running the tests; those marked integration start a real local Ray."
	@$(BIN)/python -m pytest -m "not thorough" --durations 15 --cov --cov-report=term

thorough: $(INSTALLED)  ## the tests that take longer: the page in a browser, every reward's files, rules against a second reading
	@$(BIN)/python -m pytest -m thorough --durations 15

cluster: $(INSTALLED)  ## the compose cluster for real, parts of it killed; needs Docker (deploy/ci/engine.sh), about 10 minutes
	@$(BIN)/python -m pytest tests/cluster -m cluster --durations 15

bench: $(INSTALLED)  ## ratios that the design promises: pipelining, the cost of ranking, transports, memory
	@for bench in tests/bench/bench_*.py; do echo "== $$bench"; $(BIN)/python $$bench || exit 1; done

lint: $(INSTALLED)  ## ruff, mypy, and whether the gRPC stubs are fresh
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python protos/generate.py --check

format: $(INSTALLED)  ## let ruff repair and format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

protos: $(INSTALLED)  ## write the gRPC stubs anew
	$(BIN)/python protos/generate.py

# A build suffix such as +cpu is cut off, so that the same pin means the CUDA build on a machine with a GPU.
lock: $(INSTALLED)  ## write requirements.lock anew from the versions in .venv
	@{ echo "# Exact versions for Python 3.11, used as pip constraints. Made by \`make lock\`; do not edit."; \
	  $(BIN)/pip freeze --exclude-editable --disable-pip-version-check | sed 's/+[a-z0-9.]*$$//'; } > requirements.lock.new
	@mv requirements.lock.new requirements.lock
	@touch $(INSTALLED)

clean:  ## remove .venv and every cache; runs/ is kept
	rm -rf $(VENV) .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist
	find services trainer tests protos -name __pycache__ -type d -prune -exec rm -rf {} +
