# Everything a newcomer needs: `make demo` and `make test`. Python 3.11+ and Go 1.26+ are all it asks for.
PYTHON ?= python3
VENV := .venv
RUN := PYTHONPATH=operator $(VENV)/bin
LOCK := requirements-dev.lock
# How many control planes tell stories side by side; each takes about 1.3 GB (600 MB with GOGC=100).
STORIES ?= 3
# Tests start hundreds of programs in Python. Where no bytecode is kept, each compiles the whole of ours anew: a third
# of a second.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test lint unit coverage e2e bench cluster cluster-down cluster-status storms image-check lock clean

help: ## Show this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | column -t -s '	'

$(VENV)/.installed: $(LOCK) pyproject.toml
	@echo "setting up $(VENV) (once)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 …")'
	@$(PYTHON) -m venv $(VENV)
	@$(VENV)/bin/pip install --quiet --disable-pip-version-check --require-hashes -r $(LOCK)
	@$(VENV)/bin/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(VENV)/.installed ## The main job, told on the screen, on a control plane of its own
	@$(RUN)/python -m e2e.demo

test: $(VENV)/.installed ## Everything that CI runs, and the time that each part takes
	@for part in lint unit e2e image-check; do \
	  start=$$(date +%s); echo "=== $$part"; $(MAKE) --no-print-directory $$part || exit 1; \
	  echo "=== $$part took $$(( $$(date +%s) - start )) s"; \
	done

lint: $(VENV)/.installed ## ruff, mypy, import contracts
	@$(RUN)/ruff check .
	@$(RUN)/ruff format --check --quiet .
	@$(RUN)/mypy
	@cd operator && ../$(VENV)/bin/lint-imports --config ../pyproject.toml

UNIT := $(RUN)/pytest tests operator --numprocesses=2 --dist=worksteal --doctest-modules

unit: $(VENV)/.installed ## Fast tests, with doctests
	@$(UNIT)

coverage: $(VENV)/.installed ## The same, and which lines and branches they miss (twice the time, so not in CI, where nothing hangs on it)
	@$(UNIT) --cov --cov-branch --cov-report=term-missing:skip-covered

# The API server collects its garbage less often: a tenth of its CPU, for twice its memory.
e2e: export GOGC ?= 400
e2e: $(VENV)/.installed ## Stories on a real API server
	@$(RUN)/python -m e2e.controlplane prepare
	@$(RUN)/python -m pytest e2e --ignore=e2e/stories/crash --numprocesses=$(STORIES) --dist=loadfile --no-loadscope-reorder --durations=15
	@$(RUN)/python -m pytest e2e/stories/crash

storms: $(VENV)/.installed ## The stories that kill, with as many kills as nobody waits for in CI (half an hour)
	@PILOT_IDENTITY_LOG_KILLS=200 PILOT_IDENTITY_LOG_STORMS=10 PILOT_IDENTITY_ARCHIVE_KILLS=10 \
	  $(RUN)/python -m pytest e2e/stories/audit_log e2e/stories/audit_storms e2e/stories/archive -s

bench: $(VENV)/.installed ## The benchmark; writes e2e/bench/results.{json,md}
	@$(RUN)/python -m e2e.bench

cluster: $(VENV)/.installed ## Leave a control plane running, to play with
	@$(RUN)/python -m e2e.controlplane up

cluster-down: $(VENV)/.installed ## Stop it
	@$(RUN)/python -m e2e.controlplane down

cluster-status: $(VENV)/.installed ## What of it runs
	@$(RUN)/python -m e2e.controlplane status

image-check: $(VENV)/.installed ## Prove that what the Dockerfile installs starts, without a registry
	@$(RUN)/python -m e2e.image

lock: $(VENV)/.installed ## Pin every dependency by hash again
	@$(VENV)/bin/pip-compile --quiet --no-emit-find-links --no-emit-index-url --strip-extras --generate-hashes --allow-unsafe --output-file requirements.lock pyproject.toml
	@$(VENV)/bin/pip-compile --quiet --no-emit-find-links --no-emit-index-url --strip-extras --generate-hashes --allow-unsafe --extra dev --constraint requirements.lock --output-file $(LOCK) pyproject.toml
	@$(VENV)/bin/pip-compile --quiet --no-emit-find-links --no-emit-index-url --strip-extras --generate-hashes --allow-unsafe --only-build-deps --build-deps-for wheel --constraint $(LOCK) --output-file requirements-build.lock pyproject.toml

clean: ## Remove what was made here (not the cached control plane)
	@rm -rf $(VENV) .coverage .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
