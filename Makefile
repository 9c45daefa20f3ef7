# Everything runs in .venv, which is made on first use. PYTHON names the interpreter for it (3.11 or newer).
# One test by its name: .venv/bin/pytest -k NAME. The same random numbers again: TOPB_TEST_SEED=… make test
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# A worker for each core, as far as the memory allows. All tests of a file run on one worker and share fixtures.
PARALLEL := -n auto --dist loadfile

.PHONY: demo test-fast test test-kill test-gpu check format protos sync-client lock bench clean help

demo: $(INSTALLED)  ## train one round, export it, serve it and select over gRPC; DATA=images.parquet LIMIT=3000 for your own images
	$(BIN)/topb demo $(if $(DATA),--data $(DATA)) $(if $(LIMIT),--limit $(LIMIT)) $(DEMO_OPTIONS)

test-fast: $(INSTALLED)  ## the unit tests that take less than a second each: run it after every edit
	$(BIN)/pytest tests/unit $(PARALLEL) -m 'not slow and not kill and not gpu' $(PYTEST_OPTIONS)

test: $(INSTALLED)  ## every test that this machine can run, except the long kill runs
	$(BIN)/pytest $(PARALLEL) -m 'not kill' $(PYTEST_OPTIONS)

test-kill: $(INSTALLED)  ## the long runs that kill processes at every step and at TOPB_KILLS=100 random moments
	$(BIN)/pytest -n auto --dist worksteal -m kill $(PYTEST_OPTIONS)

test-gpu: $(INSTALLED)  ## the tests that need a GPU
	$(BIN)/pytest -m gpu $(PYTEST_OPTIONS)

check: $(INSTALLED)  ## formatting, linting, types, import contracts, protos, deployment files
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/buf lint protos
	@if tag=$$(git describe --tags --abbrev=0 2>/dev/null); \
		then $(BIN)/buf breaking protos --against ".git#tag=$$tag,subdir=protos"; \
		else echo "buf breaking: skipped, because this clone has no tag to compare with"; fi
	$(BIN)/python protos/generate.py --check
	$(BIN)/python clients/python/generate_sync.py --check
	$(BIN)/hadolint deploy/*.Dockerfile
	$(BIN)/yamllint --strict --config-file deploy/yamllint.yaml deploy .github .pre-commit-config.yaml
	$(BIN)/python deploy/check.py

format: $(INSTALLED)  ## format, and apply the fixes that ruff knows
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

protos: $(INSTALLED)  ## generate clients/python/topb/v1 from protos/
	$(BIN)/python protos/generate.py

sync-client: $(INSTALLED)  ## generate the blocking client from the asynchronous one
	$(BIN)/python clients/python/generate_sync.py

# Developers get the versions of requirements-dev.lock, for every platform and Python; images get those of
# deploy/constraints.txt, and the two agree. torch and torchvision are left out of the first: which of their builds
# fits depends on the machine and on the package index.
lock: $(INSTALLED)  ## pin what pyproject.toml asks for; LOCK_OPTIONS=--upgrade takes the newest versions
	printf '%s ; sys_platform == "never"\n' torch torchvision > $(VENV)/without-torch.txt
	printf '%s\n' hatchling 'onnxruntime-gpu[cuda,cudnn]' > $(VENV)/images-besides.txt
	$(BIN)/uv pip compile $(LOCK) pyproject.toml --extra dev --universal --python-version 3.11 \
		--overrides $(VENV)/without-torch.txt -o requirements-dev.lock
	grep -v never requirements-dev.lock > $(VENV)/lock && cp $(VENV)/lock requirements-dev.lock
	$(BIN)/uv pip compile $(LOCK) pyproject.toml $(VENV)/images-besides.txt \
		--extra trainer --extra timm --extra scorer-gpu --extra postgresql -c requirements-dev.lock \
		--python-version 3.12 --python-platform x86_64-manylinux_2_28 -o deploy/constraints.txt
LOCK := --quiet --no-annotate --custom-compile-command 'make lock' $(LOCK_OPTIONS)

bench: $(INSTALLED)  ## list the benchmarks; --help of each script says how to run it
	@ls tests/benchmarks/*.py

# pip resolves torch and torchvision together, so that their versions match.
$(INSTALLED): pyproject.toml requirements-dev.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "topb needs Python 3.11 or newer; name one with make PYTHON=...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c requirements-dev.lock -e '.[dev]'
	@touch $@

clean:  ## remove the virtual environment, caches and the demo's output
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis demo-out

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /: /'
