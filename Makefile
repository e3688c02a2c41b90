# Everything a working copy needs; bare `make` lists the verbs. Works with GNU make 3.81 (macOS) and newer.
# PYTHON=python3.12 chooses the interpreter of a new .venv; ARGS="-k name" is handed to pytest.

PYTHON ?=
ARGS ?=
SEED ?=
MINUTES ?= 5
BUDGET ?= 10m
JOURNAL ?= out/fuzz
PROFILE ?=

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed
CANDIDATES := $(if $(PYTHON),$(PYTHON),python3 python3.13 python3.12 python3.11 python)
LAYERS := $(BIN)/python tests/layers.py

# Without bytecode files every run compiles every module again: the fast layer takes twice as long.
unexport PYTHONDONTWRITEBYTECODE
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export DSPEX_STRESS_MINUTES := $(MINUTES)
ifneq ($(SEED),)
export DSPEX_SEED := $(SEED)
endif
ifneq ($(PROFILE),)
LAYERS += --hypothesis-profile $(PROFILE)
endif

.DEFAULT_GOAL := help
.PHONY: help install run test fast protocol integration chaos stress bench guard hours fuzz bugbench check format bodies rules consumer coverage clean

help: ## list the verbs
	@echo "usage: make VERB [PYTHON=python3.12] [ARGS=\"-k name\"]"
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' Makefile

install: $(STAMP) ## create .venv and install the project with everything its tests need

run: $(STAMP) ## answer examples/questions.jsonl on 4 real DSPy workers, into out/answers.jsonl
	@mkdir -p out
	$(BIN)/dspex-pool run "context, question -> answer" examples/questions.jsonl -o out/answers.jsonl --session-field tenant --workers 4 --overwrite

test: $(STAMP) ## run the layers fast, protocol, integration and the short chaos tests; print their times
	@$(LAYERS) fast protocol integration chaos --short -- $(ARGS)

fast: $(STAMP) ## run the layer fast: no process, no real waiting (PROFILE=nightly searches longer)
	@$(LAYERS) fast -- $(ARGS)

protocol: $(STAMP) ## run the layer protocol: bytes on real pipes
	@$(LAYERS) protocol -- $(ARGS)

integration: $(STAMP) ## run the layer integration: real workers, real DSPy
	@$(LAYERS) integration -- $(ARGS)

chaos: $(STAMP) ## run the layer chaos, soaks included; SEED=n replays a run
	@$(LAYERS) chaos -- $(ARGS)

stress: $(STAMP) ## run the layer stress for MINUTES=5
	@$(LAYERS) stress -- $(ARGS)

bench: $(VENV)/benched ## measure the pool beside the raw limit and other pools (ARGS="--only A,B", "--help")
	@$(BIN)/python -m benchmarks $(ARGS)

guard: $(STAMP) ## count the instructions of one call against the baseline (ARGS=--record sets it)
	@$(BIN)/python -m benchmarks.guard $(ARGS)

hours: $(STAMP) ## measure the processor time of a simulated hour (ARGS="--hours 10")
	@$(BIN)/python -m benchmarks.simulated_hours $(ARGS)

fuzz: $(STAMP) ## explore seeds for BUDGET=10m; what is found is kept in out/fuzz (SEED=n, ARGS="tests")
	@$(BIN)/dspex-testkit fuzz --budget $(BUDGET) --journal $(JOURNAL) $(ARGS)

bugbench: $(STAMP) ## plant bugs of real pools, and see what finds them (ARGS="--only NAME", "--false-alarms 10000")
	@$(BIN)/python -m tests.bugbench $(ARGS)

check: $(STAMP) ## lint, format, types, floors and house rules; what every commit passes
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/python -m pytest -q -p no:faker tests/integration/test_floors.py tests/integration/test_house.py tests/integration/test_workflows.py

format: $(STAMP) ## format the code and mend what the linter can mend
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

bodies: $(STAMP) ## list the pool's own test bodies, and which run on every kind of port
	@$(BIN)/python -m tests.bodies

rules: $(STAMP) ## write what is generated: the tests' names into docs/rules.md, the tables of the documents
	@$(BIN)/python tests/integration/test_rules_covered.py
	@$(BIN)/python -m tests.documents

consumer: $(STAMP) ## install into a new environment what a consumer would, and run the example of one in all layers
	@folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && cp -R examples/consumer/. "$$folder" && \
	$(BIN)/python -m venv "$$folder/.venv" && \
	"$$folder/.venv/bin/python" -m pip install -qq ".[testkit]" "$$folder" && \
	cd "$$folder" && for layer in fast protocol integration chaos stress; do \
	  .venv/bin/python -m pytest -q -m $$layer || exit 1; \
	done

coverage: $(STAMP) ## run all layers under coverage, workers included; fail below 95 %
	@rm -f .coverage .coverage.*
	@$(LAYERS) fast protocol integration chaos --short --coverage -- $(ARGS); layers=$$?; \
	$(BIN)/coverage combine --quiet && $(BIN)/coverage report --fail-under=95 && exit $$layers

clean: ## remove .venv and everything that was built or measured
	rm -rf $(VENV) out benchmarks/results build dist htmlcov *.egg-info .coverage .coverage.* .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A half-made environment is removed, so that the next try starts clean. Distributions that ship venv
# without ensurepip (Debian without python3-venv) get pip from the interpreter's own.
$(BIN)/python:
	@found=; for candidate in $(CANDIDATES); do \
	  if $$candidate -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then found=$$candidate; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
	  version=$$($(firstword $(CANDIDATES)) --version 2>/dev/null) || version=missing; \
	  echo "make: Python 3.11 or newer is needed, and $(firstword $(CANDIDATES)) is $$version; name one: make PYTHON=/path/to/python3.12" >&2; \
	  exit 1; \
	fi; \
	echo "creating $(VENV) with $$($$found --version)"; \
	$$found -m venv $(VENV) >/dev/null 2>&1 || { \
	  rm -rf $(VENV); \
	  $$found -m venv --without-pip $(VENV) && $$found -m pip --quiet --python $(BIN)/python install pip; \
	} || { rm -rf $(VENV); echo "make: $$found can make no virtual environment: its venv or pip is missing" >&2; exit 1; }

$(STAMP): pyproject.toml | $(BIN)/python
	@echo "installing into $(VENV) (once, and again when pyproject.toml changes)"
	@$(BIN)/python -m pip install -qq --no-compile --editable ".[dev]"
	@$(BIN)/python -m compileall -qq -j 0 $(VENV)/lib || true # as pip does, but on all processors
	@touch $@

$(VENV)/benched: $(STAMP)
	@echo "installing what the benchmarks compare with into $(VENV) (once)"
	@$(BIN)/python -m pip install -qq --editable ".[bench]"
	@touch $@
