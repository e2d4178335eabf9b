# Needs Python 3.11 to 3.13, pip and make; everything else goes into .venv.
#   make search ARGS="../my_images --trials 50"     make PYTHON=/opt/python3.12/bin/python3 test

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help search test check format clean

VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= $(firstword $(shell for name in python3.11 python3.12 python3.13 python3; do \
	"$$name" -c "" >/dev/null 2>&1 && echo "$$name" && break; done) python3)
ARGS ?=

export PIP_DISABLE_PIP_VERSION_CHECK := 1

INPUTS := setup.cfg pyproject.toml constraints.txt
CREATED := $(VENV)/.created
INSTALLED := $(VENV)/.installed
INSTALLED_TEST := $(VENV)/.installed-test

help:
	@echo "make search   search on scikit-learn's handwritten digits; ARGS=\"DATA --trials 50\" for your own"
	@echo "make test     the whole test suite; ARGS=\"tests/data -x\" for a part of it"
	@echo "make check    format, lint, types, layers and tests: what CI runs"
	@echo "make format   apply the formatter and the linter's safe fixes"
	@echo "make clean    remove .venv, caches and build output; runs/ stays"

search: $(INSTALLED)
	@TUNER_PROGRAM="$(BIN)/python -m tuner" $(BIN)/python -m tuner search $(ARGS)

test: $(INSTALLED_TEST)
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile $(ARGS)

check: $(INSTALLED_TEST)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --config setup.cfg --no-cache --no-logo
	@$(MAKE) --no-print-directory test ARGS="$(ARGS) --durations=30"

format: $(INSTALLED_TEST)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist *.egg-info .coverage .coverage.* .hypothesis .import_linter_cache \
		.mypy_cache .pytest_cache .ruff_cache
	find . -path ./runs -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

# $(call python_is,CONDITION): not empty if the interpreter meets the condition on v, its version.
python_is = $(shell "$(PYTHON)" -c "import sys; v = sys.version_info; print('yes' if $(1) else '')" 2>/dev/null)
python_version = $(or $(shell "$(PYTHON)" -c "import platform; print(platform.python_version())" 2>/dev/null),not found)
WRONG_PYTHON = Python 3.11, 3.12 or 3.13 is needed (TensorFlow 2.21 has no package for others), but \
	'$(PYTHON)' is $(python_version). Name another one: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)

# Debian's Python without python3-venv makes no environment with pip in it; its own pip can then add one.
$(CREATED):
	@$(if $(call python_is,(3, 11) <= v < (3, 14)),,$(error $(WRONG_PYTHON)))
	@echo "Making $(VENV) with $(PYTHON) ($(python_version)) ..."
	@"$(PYTHON)" -m venv $(VENV) >/dev/null 2>&1 || { "$(PYTHON)" -m venv --clear --without-pip $(VENV) \
		&& "$(PYTHON)" -m pip --python $(BIN)/python install --quiet pip; }
	@touch $@

# $(call install,WHAT): editable, with the tested versions; of pip's output only downloads and errors are shown.
define install
@echo "Installing $(1) into $(VENV); the first time some 700 MB are downloaded ..."
@$(BIN)/python -m pip install --editable "$(1)" --constraint constraints.txt --progress-bar off | awk ' \
	/^ *Downloading / { print "  " $$0; fflush() } \
	/^Installing collected packages/ { print "  unpacking " NF - 3 " packages ..."; fflush() }'
endef

$(INSTALLED): $(INPUTS) $(CREATED)
	$(call install,.)
	@touch $@

$(INSTALLED_TEST): $(INPUTS) $(CREATED)
	$(call install,.[test])
	@touch $(INSTALLED) $@
