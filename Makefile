# All commands of the project; `make` lists them. Needs only Python 3.11, pip and make.

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

# Processes already use all cores; on a busy machine, a second OpenMP thread makes each of them slower.
export OMP_NUM_THREADS ?= 1
export OMP_WAIT_POLICY ?= PASSIVE

.DEFAULT_GOAL := help
.PHONY: help install demo test presets thorough compiled soak fuzz clients cluster kills bench profile-way bench-gpu lint format protos lock clean

help:  ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(INSTALLED)  ## create .venv with the exact versions of requirements.lock

$(INSTALLED): pyproject.toml requirements.lock
	@command -v $(PYTHON) > /dev/null || { \
	  echo "$(PYTHON) was not found. Install Python 3.11, or give its path: make PYTHON=/path/to/python3.11 ..."; exit 1; }
	@echo "Installing the project and its dependencies into $(VENV), with the versions of requirements.lock."
	@echo "This takes a few minutes, and happens again only when pyproject.toml or requirements.lock changes."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check --constraint requirements.lock --editable '.[dev]'
	@touch $@
	@echo "Installed."

demo: $(INSTALLED)  ## finetune the embedded generator and compare it before and after (under 6 minutes on 2 cores)
	@$(BIN)/drpo demo

# Unit tests run in two processes; those with a real Ray run one after the other, because they share one.
IN_TWO := -n 2 --dist loadfile

test: $(INSTALLED)  ## unit and integration tests, with coverage (about 16 minutes on 2 cores)
	@echo "Running the tests; those marked integration start a real local Ray."
	@$(BIN)/python -m pytest tests/unit -m "not thorough" $(IN_TWO) --durations 15 --cov --cov-report=
	@$(BIN)/python -m pytest tests/integration -m "not thorough" --durations 15 --cov --cov-append --cov-report=term

presets: $(INSTALLED)  ## every preset and layout on tiny weights, a few steps each (about 8 minutes)
	@$(BIN)/python -m pytest tests/unit -m "thorough and not compiled" $(IN_TWO) --durations 15

thorough: presets  ## longer tests: presets, the page in a browser, the files of every reward, killed services, a short soak
	@$(BIN)/python -m pytest tests/integration tests/soak -m thorough --durations 15

compiled: $(INSTALLED)  ## a step with compiled networks against a plain one; compiling takes minutes on a CPU
	@$(BIN)/python -m pytest tests/unit -m compiled

soak: $(INSTALLED)  ## 30 minutes of mixed load on a service whose replicas are killed; DRPO_SOAK_MINUTES=N for another length
	@DRPO_SOAK_MINUTES=$${DRPO_SOAK_MINUTES:-30} $(BIN)/python -m pytest tests/soak

fuzz: $(INSTALLED)  ## 10,000 generated calls of a live service, and what a neighbour notices of them (about 7 minutes)
	@DRPO_FUZZ_CALLS=10000 $(BIN)/python -m pytest tests/integration/services/gateway/test_fuzzed_contract.py -s --durations 15

clients: $(INSTALLED)  ## other projects' clients, and the oldest packages that ours takes; needs PyPI and npm, about 10 minutes
	@$(BIN)/python -m pytest tests/clients -m clients --durations 15

cluster: $(INSTALLED)  ## start the compose cluster and kill parts of it; needs Docker (deploy/ci/engine.sh), about 10 minutes
	@$(BIN)/python -m pytest tests/cluster -m cluster --durations 15

kills: $(INSTALLED)  ## train one run while 20 of its processes are killed at random moments (about 15 minutes; DRPO_KILLS=N)
	@$(BIN)/python -m pytest tests/kills -m kills -s

bench: $(INSTALLED)  ## benchmarks: pipelining, the cost of ranking, transports, hostile requests, memory
	@for bench in tests/bench/bench_*.py; do echo "== $$bench"; $(BIN)/python $$bench || exit 1; done

profile-way: $(INSTALLED)  ## where the processor time of a ranking request goes, by process and function
	@$(BIN)/python tests/bench/profile_way.py

OUT ?= runs/bench-gpu

bench-gpu: $(INSTALLED)  ## one GPU: training steps, rewards, a run, the service; random weights, 8 minutes (deploy/GPU.md)
	@PYTHONPATH=tests $(BIN)/python -m bench.gpu --out $(OUT)

lint: $(INSTALLED)  ## ruff, mypy, and a check that the gRPC stubs are up to date
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python protos/generate.py --check

format: $(INSTALLED)  ## fix and format the code with ruff
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

protos: $(INSTALLED)  ## regenerate the gRPC stubs
	$(BIN)/python protos/generate.py

# Build suffixes such as +cpu are removed, so that the same pin installs the CUDA build on a machine with a GPU.
lock: $(INSTALLED)  ## rewrite requirements.lock from the versions in .venv
	@{ echo "# Exact versions for Python 3.11, used as pip constraints. Made by \`make lock\`; do not edit."; \
	  $(BIN)/pip freeze --exclude-editable --disable-pip-version-check | sed 's/+[a-z0-9.]*$$//'; } > requirements.lock.new
	@mv requirements.lock.new requirements.lock
	@touch $(INSTALLED)

clean:  ## remove .venv and all caches, but not runs/
	rm -rf $(VENV) .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist
	find services trainer tests protos -name __pycache__ -type d -prune -exec rm -rf {} +
