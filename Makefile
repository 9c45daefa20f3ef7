# Everything runs in .venv, made on first use. PYTHON names the interpreter to make it with (3.11 or newer).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: demo test test-gpu check format protos bench clean

demo: $(INSTALLED)  ## train a round, export, serve, select over gRPC; DATA=images.parquet LIMIT=3000 for your own
	$(BIN)/topb demo $(if $(DATA),--data $(DATA)) $(if $(LIMIT),--limit $(LIMIT)) $(DEMO_OPTIONS)

test: $(INSTALLED)  ## every test that this machine can run
	$(BIN)/pytest $(PYTEST_OPTIONS)

test-gpu: $(INSTALLED)  ## the tests that need a GPU
	$(BIN)/pytest -m gpu $(PYTEST_OPTIONS)

check: $(INSTALLED)  ## format, lint, types, laws, protos, deployment files
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/buf lint protos
	$(BIN)/python protos/generate.py --check
	$(BIN)/python deploy/check.py

format: $(INSTALLED)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

protos: $(INSTALLED)  ## generate clients/python/topb/v1 from protos/
	$(BIN)/python protos/generate.py

bench: $(INSTALLED)  ## list the benchmarks; each is a script, and says how to run it
	@ls tests/benchmarks/*.py

# pip resolves torch and torchvision together, so that the two fit each other.
$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "topb needs Python 3.11 or newer; name one with make PYTHON=...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis demo-out
