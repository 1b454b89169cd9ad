# Millrace: `make run` brings everything up, `make test` proves it. `make help` lists the rest.

SHELL := /bin/bash
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PROTO := $(wildcard proto/millrace/v1/*.proto)
GENERATED := millrace/v1/.generated
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export MLFLOW_DISABLE_TELEMETRY := true

# The first Python of a line that we support; PYTHON=... chooses another. A shim that only prints an error is
# passed over, because each candidate has to run.
PYTHON ?= $(shell for python in python3.12 python3.11 python3; do \
	$$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null \
	&& echo $$python && break; done)

.PHONY: help
help: ## List these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  \033[1m%-14s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: setup
setup: $(READY) ## Make the environment in .venv (done by every other command)

$(READY): pyproject.toml constraints.txt hatch_build.py
	@test -n "$(PYTHON)" || { echo "Millrace needs Python 3.11 or 3.12; none was found. Name one: make PYTHON=/path/to/python3.12"; exit 1; }
	@echo "Setting up .venv with $$($(PYTHON) --version) (about two minutes the first time)"
	@$(PYTHON) -m venv $(VENV)
	@PIP_CONSTRAINT=$(CURDIR)/constraints.txt $(BIN)/python -m pip install --quiet --progress-bar on -e '.[all,dev]'
	@$(BIN)/python -m millrace.warm_up >/dev/null
	@touch $(READY) $(GENERATED)

$(GENERATED): $(PROTO) | $(READY)
	@$(BIN)/python hatch_build.py
	@touch $@

.PHONY: proto
proto: $(READY) $(GENERATED) ## Generate millrace.v1 from proto/ after a change of the contracts

.PHONY: run
run: $(READY) $(GENERATED) ## The whole pipeline on real parts with simulated shoppers, until Ctrl-C
	@$(BIN)/millrace run

.PHONY: demo
demo: $(READY) $(GENERATED) ## Black Friday in ten minutes on the whole pipeline, told as it happens (ARGS="--minutes 5")
	@$(BIN)/millrace demo $(ARGS)

.PHONY: test
test: $(READY) $(GENERATED) ## Every test that needs only pip (ARGS="-k some" for a part, in one process)
	@$(BIN)/python -m pytest -m "not system and not chaos" -n auto --dist loadscope --no-loadscope-reorder $(ARGS)

# What tests of the console look with: Debian's Chromium with its driver, a font, and axe, which finds what cannot be
# used with a keyboard or a screen reader. npm and not a wheel: those hold an axe of 2018, or need a browser of their own.
AXE := $(VENV)/axe/package/axe.min.js
AXE_VERSION := 4.11.4

$(AXE): | $(READY)
	@mkdir -p $(VENV)/axe
	@cd $(VENV)/axe && npm pack --silent axe-core@$(AXE_VERSION) >/dev/null && tar -xzf axe-core-$(AXE_VERSION).tgz

.PHONY: browser
browser: $(AXE)
	@{ command -v chromium && command -v chromedriver; } >/dev/null || { echo "Installing Chromium"; apt-get update -qq && \
	DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends chromium chromium-driver fonts-inter >/dev/null; }

.PHONY: screenshots
screenshots: $(READY) $(GENERATED) browser ## Pictures of the console of a running pipeline, into docs/console (three minutes)
	@$(BIN)/python -m tests.screenshots $(ARGS)

.PHONY: test-system
test-system: $(READY) $(GENERATED) browser ## Tests that need ../shared or Debian packages
	@$(BIN)/python -m pytest -m system $(ARGS)

.PHONY: chaos
chaos: $(READY) $(GENERATED) ## Kill everything with -9, five times as often as `make test` does: docs/reliability.md (an hour)
	@lines=$$(mktemp); CHAOS_TIMES=$${CHAOS_TIMES:-5} CHAOS_RESULTS=$$lines $(BIN)/python -m pytest -s --timeout 0 tests/chaos $(ARGS); \
	status=$$?; $(BIN)/python -m benchmarks.reliability_document $$lines; rm -f $$lines; exit $$status

.PHONY: soak
soak: $(READY) $(GENERATED) ## The whole pipeline for ten minutes (SOAK_MINUTES): does memory, lag or a descriptor grow? docs/soak.md
	@$(BIN)/python -m benchmarks.soak $(ARGS)

.PHONY: lint
lint: $(READY) $(GENERATED) ## Format, lint and type checks
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy

.PHONY: contracts
contracts: $(READY) ## buf lint, and no breaking change against the last release
	@cd proto && ../$(BIN)/buf lint
	@cd proto && ../$(BIN)/buf breaking --against released.binpb

.PHONY: release-contracts
release-contracts: $(READY) contracts ## Move the baseline of the contracts (with a release only)
	@cd proto && ../$(BIN)/buf build --exclude-source-info -o released.binpb

.PHONY: bench
bench: $(READY) $(GENERATED) ## Every benchmark, each with the machine's own limit beside it
	@$(BIN)/millrace bench freshness
	@$(BIN)/millrace bench workers
	@$(BIN)/millrace bench learning
	@$(BIN)/millrace bench experiments
	@$(BIN)/millrace bench rollback
	@$(BIN)/millrace bench promotion
	@$(BIN)/millrace bench recommend
	@$(BIN)/millrace bench gateway
	@$(BIN)/millrace bench simulation
	@$(BIN)/millrace bench freshness-value
	@$(MAKE) --no-print-directory browser
	@$(BIN)/millrace bench console

.PHONY: evaluate
evaluate: $(READY) $(GENERATED) ## How good recommendations are on known data: docs/quality.md (hours; goes on where it was)
	@$(BIN)/python -m benchmarks.quality $(ARGS)

.PHONY: statistics
statistics: $(READY) $(GENERATED) ## What the rules of experiments and drift do to simulated streams whose truth is known
	@$(BIN)/python -m benchmarks.statistics $(ARGS)

.PHONY: monitoring
monitoring: $(READY) $(GENERATED) ## Write docs/metrics.md and the dashboards anew after a change of metrics
	@$(BIN)/python -m deploy.prometheus.document
	@$(BIN)/python -m deploy.grafana

.PHONY: documents
documents: $(READY) $(GENERATED) ## Write docs/settings.md anew after a change of settings
	@$(BIN)/python -m deploy.settings_document

.PHONY: format
format: $(READY) ## Format the code and mend what ruff can mend
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

.PHONY: clean
clean: ## Remove the environment and generated code (not your data in .millrace)
	rm -rf $(VENV) millrace/v1 .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
