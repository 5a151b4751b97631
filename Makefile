# One command per task; `make` alone lists them. Every task that needs Python packages installs them first.

SHELL := /bin/sh
VENV := .venv
PY := $(VENV)/bin/python
REQUIREMENT_FILES := .python-version constraints.txt requirements.txt requirements-batch.txt requirements-dev.txt
# One stamp per content of the requirement files: changed pins install again, anything else costs nothing.
STAMP := $(VENV)/.installed-$(shell cat $(REQUIREMENT_FILES) | cksum | cut -d ' ' -f 1)
SAY = @printf '\n== %s\n'

# Tests and the night start hundreds of Python processes: each would compile its packages anew where the caller's
# environment forbids to keep bytecode, and uv installs packages without any.
unexport PYTHONDONTWRITEBYTECODE

# pytest-xdist workers; 0 runs in one process, as a debugger wants it.
WORKERS ?= 2
# What `make chaos` runs: one run a seed.
SEEDS ?= 1 2 3 4 5
EVENTS ?= 200000
KILLS ?= 200
# What `make fuzz` sends: so many examples of every operation (100 make 20,000 requests), so many steps of the rules.
FUZZ_EXAMPLES ?= 100
RULES_STEPS ?= 10000
MLFLOW_STORE ?= sqlite:///.recommndr/data/mlflow.db
DEMO_ARGS := $(if $(filter 1,$(ONCE)),--once) $(if $(DATA),--data-file "$(DATA)") $(ARGS)

.DEFAULT_GOAL := help
.PHONY: help setup demo serve nightly test chaos fuzz lint check format client bench bench-check quality mlflow feast lock clean

help: ## Show this list
	@echo "Recommndr: recommendations that react to the last click. Two commands to know: make demo, make test."
	@echo
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/\1|\2/p' Makefile | awk -F '|' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: $(STAMP) ## Create .venv with every pinned package (PYTHON=path picks the interpreter)
	@$(if $(filter setup,$(MAKECMDGOALS)),echo "setup: $(VENV) holds every pinned package",:)

$(STAMP): $(REQUIREMENT_FILES)
	$(SAY) "setup: creating $(VENV) and installing the pinned packages (once; about 1.5 GB)"
	@PYTHON="$(PYTHON)" sh local/install.sh $(VENV)
	@rm -f $(VENV)/.installed-* && touch $@

demo: setup ## The whole story on this machine (ONCE=1 ends by itself, DATA=file uses a real shop's orders)
	$(SAY) "demo: data, nightly job, release, API, and a shopper whose clicks change her page"
	@$(PY) -m local.demo $(DEMO_ARGS)

serve: setup ## Serve the last release on http://localhost:7071 until Ctrl-C
	$(SAY) "serve: embedded log and state, HTTP on http://localhost:7071, pump and timers"
	@$(PY) -m local.serve $(ARGS)

nightly: setup ## Run the nightly job on DATA (default .recommndr/data; see dvc.yaml)
	$(SAY) "nightly: lake, models, evaluation, release"
	@$(PY) -m batch.run_nightly --data "$(or $(DATA),.recommndr/data)" $(ARGS)

test: setup ## Run the tests; at least 80% of lines must be covered
	$(SAY) "test: the test suite on $(WORKERS) processes, with line coverage"
	@$(PY) -m pytest -n $(WORKERS) --dist loadgroup --cov --cov-report=term $(ARGS)

chaos: setup ## Kill the processor KILLS times amid EVENTS events, for each of SEEDS; compare with one clean pass
	$(SAY) "chaos: $(EVENTS) events, $(KILLS) kills; seeds $(SEEDS)"
	@for seed in $(SEEDS); do \
		$(PY) -m tests.chaos.once --events $(EVENTS) --kills $(KILLS) --seed $$seed $(ARGS) || exit 1; \
	done

fuzz: setup ## Attack the API: 20,000 requests by schemathesis, 10,000 steps of the rules' state machine
	$(SAY) "fuzz: schemathesis on docs/openapi.json, $(FUZZ_EXAMPLES) examples an operation; $(RULES_STEPS) steps of the rules"
	@FUZZ_EXAMPLES=$(FUZZ_EXAMPLES) $(PY) -m pytest -n $(WORKERS) tests/contract/test_openapi_fuzz.py $(ARGS)
	@RULES_STEPS=$(RULES_STEPS) $(PY) -m pytest --timeout 3600 tests/integration/test_rules_everywhere.py $(ARGS)

lint: setup ## Check style, types, import layers and docs/openapi.json
	$(SAY) "lint: ruff, mypy --strict, import-linter, the API's document"
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(PY) -m mypy
	@$(VENV)/bin/lint-imports --no-logo
	@$(PY) -m local.describe_api --check
	@$(PY) -m local.describe_access --check

check: ## lint and test
	@$(MAKE) lint
	@$(MAKE) test

format: setup ## Rewrite the code in the project's format
	$(SAY) "format: ruff, fixes that are safe and the layout"
	@$(VENV)/bin/ruff check --fix-only .
	@$(VENV)/bin/ruff format .

client: setup ## Generate a typed Python client of the API into .recommndr/client
	$(SAY) "client: openapi-python-client on docs/openapi.json"
	@PATH="$(CURDIR)/$(VENV)/bin:$$PATH" openapi-python-client generate --path docs/openapi.json \
		--output-path .recommndr/client --overwrite --fail-on-warning

bench: setup ## Measure 1,000 recommendations over HTTP; prints JSON
	$(SAY) "bench: 1,000 sequential /recommend against local.serve and a bare echo"
	@$(PY) -m tests.benchmarks.serving $(ARGS)

bench-check: setup ## Measure again and compare with the committed ratios
	$(SAY) "bench-check: the ratios to a bare echo against the committed ones"
	@$(PY) -m tests.benchmarks.check $(ARGS)

quality: setup ## Measure every row of docs/quality.md from ../shared/data (hours, goes on where it ended; SET=beauty: one)
	$(SAY) "quality: $(or $(SET),every set), from $(or $(DATA),../shared/data)"
	@$(PY) -m batch.quality $(if $(SET),--set "$(SET)") $(if $(DATA),--data "$(DATA)") $(ARGS)

mlflow: setup ## Open the experiment tracker's pages on http://localhost:5000
	$(SAY) "mlflow: the nightly runs, metrics and registered models, until Ctrl-C"
	@$(PY) -m mlflow ui --backend-store-uri $(MLFLOW_STORE) $(ARGS)

feast: setup ## Open the feature catalogue's pages on http://localhost:8888
	$(SAY) "feast: every declared feature in Feast's registry and pages, until Ctrl-C"
	@$(PY) -m feature_jobs.feast_catalog --ui $(if $(DATA),--data "$(DATA)") $(ARGS)

lock: setup ## Write constraints.txt anew after a change of requirements*.txt
	$(SAY) "lock: resolving the requirement files for every platform"
	@grep -hv -e '^-' -e '^#' requirements.txt requirements-batch.txt requirements-dev.txt > $(VENV)/requirements.in
	@sed 's/^#.*//' constraints.txt > $(VENV)/constraints.out
	@$(VENV)/bin/uv pip compile --quiet --universal --python-version 3.13 --no-header --no-annotate \
		--no-emit-index-url --no-emit-find-links $(VENV)/requirements.in -o $(VENV)/constraints.out
	@{ sed -n '1{/^#/p;}' constraints.txt; cat $(VENV)/constraints.out; } > $(VENV)/constraints.new
	@mv $(VENV)/constraints.new constraints.txt

clean: ## Remove caches and demo data; .venv stays
	$(SAY) "clean: caches and .recommndr"
	@rm -rf .recommndr .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage .coverage.* htmlcov
	@find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
