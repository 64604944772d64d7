# `make figures` and `make test` work on a machine that has Python >= 3.11 and make, and nothing else.
#
# An activated environment is used as it is (conda's "base" does not count as one). Without one, .venv is made,
# filled once, and filled again when pyproject.toml or constraints.txt changes. VENV=folder puts it elsewhere.

.DEFAULT_GOAL := help
.PHONY: help env figures test lint format lab clean

PROFILE ?= quick
JOBS ?= 1

ifndef VENV
  ifdef VIRTUAL_ENV
    ACTIVE := $(VIRTUAL_ENV)
  else
    ifneq ($(CONDA_DEFAULT_ENV),base)
      ACTIVE := $(CONDA_PREFIX)
    endif
  endif
endif
VENV ?= .venv
ENV := $(if $(ACTIVE),$(ACTIVE),$(VENV))
PYTHON := $(ENV)/bin/python
INSTALL := -m pip install --disable-pip-version-check -e '.[test]' -c constraints.txt

help:
	@echo "make figures   run every notebook ($(PROFILE) profile; PROFILE=full, JOBS=2) and fill figures/"
	@echo "make test      run the tests (ARGS='tests/data -k tree' for some of them)"
	@echo "make lab       open JupyterLab in notebooks/"
	@echo "make lint      check style; make format puts it right"
	@echo "make env       create or complete the environment only ($(ENV))"
	@echo "make clean     remove build products, not figures, not the environment"

ifdef ACTIVE
env:
	@"$(PYTHON)" -c 'import workbench.cli, pytest' 2>/dev/null || { echo "The active environment $(ENV) lacks \
	the workbench. Either install it there: pip install -e '.[test]' -c constraints.txt - or leave the environment \
	(deactivate), and make creates .venv." >&2; exit 1; }
else
env: $(ENV)/.workbench-installed

$(ENV)/.workbench-installed: pyproject.toml constraints.txt
	@"$(PYTHON)" -m pip --version >/dev/null 2>&1 || { \
	  for name in python3 python3.13 python3.12 python3.11 python; do \
	    if "$$name" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	      echo "Creating $(ENV) with $$("$$name" --version)."; exec "$$name" -m venv "$(ENV)"; \
	    fi; \
	  done; \
	  echo "No Python >= 3.11 with its venv module was found. Install one, from python.org or with" >&2; \
	  echo "  apt-get install python3 python3-venv      (Debian, Ubuntu)      brew install python      (macOS)" >&2; \
	  exit 1; }
	"$(PYTHON)" $(INSTALL)
	@touch "$@"
endif

figures: env
	"$(PYTHON)" -m workbench figures --force --profile $(PROFILE) --jobs $(JOBS) $(ARGS)

test: env
	"$(PYTHON)" -m pytest -n 2 --dist loadfile $(ARGS)

lint: env
	"$(PYTHON)" -m ruff check .
	"$(PYTHON)" -m ruff format --check .

format: env
	"$(PYTHON)" -m ruff check --fix .
	"$(PYTHON)" -m ruff format .

lab: env
	"$(PYTHON)" -m workbench lab $(ARGS)

clean:
	rm -rf build dist .pytest_cache .ruff_cache .hypothesis
	find workbench tests benchmarks scripts -name __pycache__ -type d -prune -exec rm -rf {} +
