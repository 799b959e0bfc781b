# make meeting   a whole meeting on this machine        make test    lint, types and every test
# make venv      the environment alone                  make bench   every benchmark
# make fuzz      ten million mutants for the screen's decoder (EXECUTIONS=… SEED=…)
PYTHON ?= python3
BIN := .venv/bin

.PHONY: help meeting test lint venv bench fuzz demo lock words clean
help:
	@sed -n 's/^# //p' Makefile

meeting: .venv/ready
	@exec $(BIN)/parley up

demo: .venv/ready
	@exec $(BIN)/parley demo

test: lint
	$(BIN)/pytest -n 2

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: .venv/ready
	@set -e; for question in benchmarks/[a-z]*.py; do echo "== $$question"; $(BIN)/python $$question --json; done

EXECUTIONS ?= 10000000
fuzz: .venv/ready
	$(BIN)/python tests/fuzz/screen.py --executions $(EXECUTIONS) $(if $(SEED),--seed $(SEED))

venv: .venv/ready

.venv/ready: requirements.lock requirements-uv.lock pyproject.toml
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-uv.lock
	$(BIN)/uv pip sync --quiet --compile-bytecode --require-hashes --python $(BIN)/python requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

# after a change of dependencies: make lock, then make venv
lock:
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header --group dev pyproject.toml -o requirements.lock

# after a change of what the site says: new sentences into every language's file, to be translated there
words:
	$(BIN)/python -m manager.site.languages

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache
