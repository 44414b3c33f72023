# make demo, make test, make bench: each gets what it needs. make lint, make clean.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: demo test bench lint types clean server

demo: $(STAMP)
	$(BIN)/vcld demo --dir demo

test: $(STAMP) server lint types
	$(BIN)/python -m pytest --numprocesses 4 --dist worksteal $(PYTEST_ARGS)

bench: $(STAMP) server
	$(BIN)/python -m bench

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(STAMP)
	$(BIN)/mypy

# A stamp, so that a second run installs nothing.
$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	    { echo "Python 3.11 or newer with venv is needed: apt-get install python3 python3-venv" >&2; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet -e '.[dev]'
	@touch $@

# The tests and benchmarks start a MariaDB server, hosts with SSH and simulators of their own.
server:
	@tools/need-mariadb
	@tools/need-galera
	@tools/need-hosts
	@tools/need-vcsim

clean:
	rm -rf $(VENV) demo build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
