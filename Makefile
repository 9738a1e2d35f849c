# Everything a developer does. `make help` lists it.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
TYPESCRIPT ?= build/typescript
DATA ?= $(or $(WARMSTART_DATA_DIR),var)
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# In the order of files, so that those of a few long tests are not left to the end.
SIDE_BY_SIDE := --numprocesses=logical --maxprocesses=4 --dist=loadfile --no-loadscope-reorder
CHAOS := durability backends database full_disk arms checkpoints contract writes readers retries erasure redis soak overload shutdown reloads

.PHONY: $(shell grep -oE '^[a-z-]+:' $(MAKEFILE_LIST) | tr -d :)

help: ## list what there is to do
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sort | awk -F':.*## ' '{printf "  make %-18s %s\n", $$1, $$2}'

# torch first: a plain install may take a build with several gigabytes of CUDA libraries.
.venv/.service: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet "torch>=2.13,<2.14"
	$(BIN)/pip install --quiet --editable .
	touch $@

.venv/.developer: .venv/.service
	$(BIN)/pip install --quiet --editable ".[dev]"
	touch $@

serve: .venv/.service ## set up, train on MovieLens-100K if needed, serve on 127.0.0.1:8000
	$(BIN)/warmstart demo

# What breaks things measures how long a service is away: it has the machine to itself.
test: .venv/.developer ## set up and run every test but the long ones
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(SIDE_BY_SIDE) --ignore=tests/chaos
	$(MAKE) chaos-short

test-fast: .venv/.developer ## the tests that take seconds
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(SIDE_BY_SIDE) -m "not slow and not e2e and not eval"

chaos: .venv/.developer ## break things at length: kills, damage, soak; hours. CHAOS="durability arms" chooses
	set -e; for name in $(CHAOS); do OMP_NUM_THREADS=1 $(BIN)/python -m tests.chaos.$$name; done

chaos-short: .venv/.developer ## the same in minutes, as part of `make test`
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/chaos

check: .venv/.developer ## format, lint, types, import contracts, migrations, configuration files
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m tests.check_migrations
	$(BIN)/yamllint --strict docker-compose.yml docker/kubernetes mkdocs.yml
	$(BIN)/kubernetes-validate --strict --quiet $(filter-out %/kustomization.yaml,$(wildcard docker/kubernetes/*.yaml))
	test ! -x $(BIN)/hadolint || $(BIN)/hadolint docker/Dockerfile

format: .venv/.developer ## put code into its form
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: .venv/.developer ## speed of adaptation, of policies and of answers over HTTP
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.adaptation
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.policies
	$(BIN)/python -m benchmarks.serving
	$(BIN)/python -m benchmarks.ingest

evaluate: .venv/.developer ## the short evaluation: every recommender on MovieLens-100K
	$(BIN)/warmstart datasets fetch movielens-100k --out $(DATA)/datasets/movielens-100k
	$(BIN)/warmstart evaluate --data $(DATA)/datasets/movielens-100k --protocol kshot --out $(DATA)/evaluation/short

results: .venv/.developer ## make docs/RESULTS.md and docs/figures.md from the reports in docs/results
	$(BIN)/warmstart results --figures docs/figures.md

client-python: .venv/.developer ## make the synchronous Python client of the asynchronous one
	$(BIN)/python -m tests.make_client

client-typescript: .venv/.service ## make a TypeScript client of the OpenAPI document, into build/typescript; needs npm
	mkdir -p $(TYPESCRIPT)
	cp docs/typescript/* $(TYPESCRIPT)
	$(BIN)/warmstart openapi > $(TYPESCRIPT)/openapi.json
	cd $(TYPESCRIPT) && npm ci --silent --no-audit --no-fund && npm run --silent make

docs: .venv/.developer ## build the documentation, links checked, into build/docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

wheel: .venv/.service ## build the package, into dist/
	rm -rf dist
	$(BIN)/pip wheel --quiet --no-deps --wheel-dir dist .

.venv/.supply: .venv/.service
	$(BIN)/pip install --quiet --editable ".[supply]"
	touch $@

# Without torch, which has builds for a CPU and for CUDA with digests of their own: docker/Dockerfile chooses one.
lock: .venv/.supply ## make requirements.lock: versions and digests of all that the service is made of
	$(BIN)/uv pip compile pyproject.toml --generate-hashes --python-version 3.11 --python-platform linux \
	  --no-emit-package torch --no-emit-index-url --no-emit-find-links --no-annotate --no-header --quiet --output-file requirements.lock

audit: .venv/.supply ## look for known weaknesses in what is locked; needs the advisory service
	$(BIN)/pip-audit --requirement requirements.lock --require-hashes --disable-pip --strict --progress-spinner off \
	  || { echo "Weaknesses were found, or nothing was audited because the advisory service cannot be reached: see above." >&2; exit 1; }

sbom: .venv/.supply ## make var/sbom.json, a CycloneDX bill of materials of the service
	mkdir -p var
	{ cat requirements.lock; $(BIN)/pip list --format=freeze | grep '^torch=='; } \
	  | $(BIN)/cyclonedx-py requirements --pyproject pyproject.toml --output-format JSON --output-file var/sbom.json -

clean: ## remove what tools left behind; data and checkpoints stay
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist
