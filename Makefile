# Every task of the project. `make` lists them.

PYTHON ?= $(shell for name in python3 python3.14 python3.13 python3.12 python3.11; do \
	if command -v $$name >/dev/null 2>&1 && $$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; \
	then echo $$name; break; fi; done)
UV_VERSION := 0.13.8
BIN := .venv/bin
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup demo test check format sim fuzz faults hostile bench bench-quick postman docs lock clean

help: ## List the tasks
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1|\2/' | column -t -s '|' 2>/dev/null \
		|| grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST)

setup: .venv/.ready ## Put everything into .venv; the command is then .venv/bin/order-engine

demo: .venv/.ready ## Run the whole engine with sample orders (ARGS=--once ends by itself)
	@$(BIN)/order-engine demo $(ARGS)

test: .venv/.ready ## Run all tests
	@$(BIN)/python -m pytest $(ARGS)

check: .venv/.ready ## Check format, lint, types, import contracts and tidiness
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python -m pytest -q -n 0 tests/test_tidy.py

format: .venv/.ready ## Format the code and mend what lint can mend
	@$(BIN)/ruff check --fix-only .
	@$(BIN)/ruff format .

sim: .venv/.ready ## Simulate seeded histories (SEEDS=250000 for the long run, SEED=n replays one)
	@$(BIN)/python -m tests.simulation $(if $(SEED),--seed $(SEED),--seeds $(or $(SEEDS),2000))

fuzz: .venv/.ready ## Send 20,000 generated requests to both shapes, with all checks of schemathesis (ARGS="--cases 1000")
	@$(BIN)/python -m tests.fuzz $(ARGS)

faults: .venv/.ready ## Kill, freeze and cut the real engine for two minutes (ARGS="--kills 1000", ARGS=--measure)
	@$(BIN)/python -m tests.faults $(ARGS)

hostile: .venv/.ready ## Measure what clients that misuse the server cost the others (ARGS="frames --seconds 10")
	@$(BIN)/python -m tests.hostile $(ARGS)

bench: .venv/.ready ## Measure throughput and latency; prints a table, writes bench/results/latest.json
	@$(BIN)/python -m bench $(ARGS)

bench-quick: .venv/.ready ## One small burst of this engine and two peers, under a minute; keeps no figures
	@$(BIN)/python -m bench --quick $(ARGS)

postman: .venv/.ready ## Send the Postman collection to a live engine with newman (needs npm)
	@$(BIN)/python -m tests.postman $(ARGS)

docs: .venv/.ready ## Write what the documents take from the code
	@$(BIN)/python -m docs.generate

lock: .venv/.ready ## Pin the newest dependencies that pyproject.toml allows
	@compile="$(BIN)/uv pip compile --quiet --upgrade --universal --generate-hashes --no-header --python-version 3.11"; \
		$$compile pyproject.toml --output-file requirements.txt && \
		$$compile pyproject.toml --group dev --output-file requirements-dev.txt && \
		$$compile bench/peers/python_queue/requirements.in --output-file bench/peers/python_queue/requirements.txt
	@if command -v npm >/dev/null 2>&1; then for package in bench/peers/fastify tests/postman; do \
			(cd $$package && npm update --package-lock-only --no-audit --no-fund); done; \
		else echo "no npm: the package-lock.json files stay as they are" >&2; fi

clean: ## Remove .venv and what the tools left
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

# uv is used if it is on the PATH, otherwise it is put into .venv.
.venv/.ready: requirements-dev.txt pyproject.toml Makefile
	@test -n "$(PYTHON)" || { echo "order-engine needs Python 3.11 or newer; name one with: make setup PYTHON=/path/to/python3" >&2; exit 1; }
	@echo "Putting order-engine and its tools into .venv (only the first time) ..." >&2
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@command -v uv >/dev/null 2>&1 || test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@uv="$$(command -v uv || echo $(BIN)/uv)"; \
		"$$uv" pip sync --quiet --python $(BIN)/python --require-hashes requirements-dev.txt && \
		"$$uv" pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch .venv/.ready
