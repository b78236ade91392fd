# Needs only make and Python >= 3.11; everything else is installed into a virtual environment.
# Another interpreter: make test PYTHON=python3.12     Another place: make test VENV=/path/to/venv

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin

# The package runs its own threads over patterns; threads inside the numerical libraries only get in their way.
export OMP_NUM_THREADS ?= 1
export OPENBLAS_NUM_THREADS ?= 1

DEMO_OUTPUT ?= demo_output

.PHONY: help demo test lint format docs bench clean
.DEFAULT_GOAL := help

help:
	@echo "make demo    reconstruct the shipped data set (no GPU needed); pictures in $(DEMO_OUTPUT)/"
	@echo "make test    run the tests"
	@echo "make lint    ruff and mypy"
	@echo "make docs    build the documentation into site/"
	@echo "make bench   time one loss and gradient"
	@echo "make clean   remove the virtual environment and everything built"

$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

# One stamp per group of optional dependencies.
$(VENV)/.installed-%: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[$*]"
	@touch $@

demo: $(VENV)/.installed
	$(BIN)/pyptyx demo --output $(DEMO_OUTPUT)

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest -n auto -W error --strict-markers $(PYTEST_ARGS)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.installed-docs
	$(BIN)/mkdocs build --strict

bench: $(VENV)/.installed
	$(BIN)/python -m benchmarks $(BENCH_ARGS)

clean:
	rm -rf $(VENV) build dist site $(DEMO_OUTPUT) .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
