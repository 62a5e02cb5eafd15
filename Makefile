# make demo      trains the digits example in two processes; the second time it finds all cached
# make test      the tests, in JOBS processes; make test-slow the slow ones, make test-all both
# make slurm     Slurm, for the tests on a real one, where root and apt are; make test calls it
# make lint      ruff and mypy
# make wheel     dist/curitorch-….whl
# make clean     removes what these made
#
# Each makes the environment VENV first if need be, from PYTHON (3.11 or newer), and installs again
# when pyproject.toml or constraints.txt changed.

VENV ?= .venv
PYTHON ?= python3
ARGS ?=
JOBS ?= 2

IN_VENV := "$(VENV)/bin/python" -m
OUTPUTS := $(addprefix examples/digits/,data logs reports)
CACHES := .mypy_cache .pytest_cache .ruff_cache .hypothesis .types build dist curitorch.egg-info

# What some tests need besides Python; elsewhere than with root and apt-get they say so and are skipped.
OUTSIDE := chromium fonts-dejavu-core
APT_INSTALL := apt-get -o DPkg::Lock::Timeout=300 install -yqq --no-install-recommends

# A network may fail once: the words, up to three times.
again = { { $(1); } || { sleep 5; $(1); } || { sleep 20; $(1); }; }

.PHONY: demo test test-slow test-all slurm lint wheel clean
.DELETE_ON_ERROR:

demo: $(VENV)/.installed-digits
	@python="$$(cd "$(VENV)/bin" && pwd)/python"; cd examples/digits && \
	    set -x && "$$python" -m curitorch.stages.run digits -p quick $(ARGS)

test: $(VENV)/.installed-dev $(VENV)/.outside slurm
	$(IN_VENV) pytest -q -m "not slow" -n $(JOBS) --dist loadfile $(ARGS)

test-slow: $(VENV)/.installed-dev $(VENV)/.outside slurm
	$(IN_VENV) pytest -q -m slow -n $(JOBS) --dist worksteal $(ARGS)

test-all: test test-slow

slurm:
	@sh tests/stages/slurm/install.sh

lint: $(VENV)/.installed-dev
	$(IN_VENV) ruff check .
	$(IN_VENV) ruff format --check .
	@mkdir -p .types && ln -sfn .. .types/curitorch  # mypy's view of an editable install
	$(IN_VENV) mypy

wheel: $(VENV)/.installed-dev
	rm -rf build  # setuptools would pack what an older build left there
	$(IN_VENV) pip wheel -q --no-deps --no-build-isolation -w dist .

clean:
	rm -rf $(OUTPUTS) $(CACHES) .coverage .coverage.*
	find . -name __pycache__ -not -path './.venv/*' -not -path './.git/*' -prune -exec rm -rf {} +
	@if [ -e "$(VENV)/.made-by-make" ]; then set -x; rm -rf "$(VENV)"; fi

# The extra's name is the stem: curitorch[digits], curitorch[dev].
$(VENV)/.installed-%: pyproject.toml constraints.txt | $(VENV)/.python
	@echo 'Installing curitorch[$*] into $(VENV); the first time it takes a minute or more.'
	@$(call again,$(IN_VENV) pip install -qq --disable-pip-version-check -c constraints.txt -e ".[$*]")
	@touch "$@"

$(VENV)/.outside: Makefile | $(VENV)/.python
	@if [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null; then \
	    if ! dpkg-query -W $(OUTSIDE) > /dev/null 2>&1; then \
	        echo 'Installing for the tests: $(OUTSIDE)'; export DEBIAN_FRONTEND=noninteractive; \
	        $(call again,apt-get update -qq; $(APT_INSTALL) $(OUTSIDE) > /dev/null) \
	            || echo 'That failed: tests that need it will say so.'; \
	    fi; \
	fi
	@touch "$@"

$(VENV)/.python:
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else \
	    f"$(PYTHON) is Python {v[0]}.{v[1]}, curitorch needs 3.11 or newer: make … PYTHON=python3.12")'
	@if [ ! -x "$(VENV)/bin/python" ]; then echo 'Making $(VENV).'; \
	    $(PYTHON) -m venv "$(VENV)" && touch "$(VENV)/.made-by-make"; fi
	@touch "$@"
