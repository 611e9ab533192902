# The command runner. `make` lists the targets. A fresh Debian 12 needs only git, make and python3:
# `make demo` and `make test` do all their own set-up (as root also the system packages).

PYTHON ?= python3
# Worker processes of pytest; 0 runs everything in one process.
JOBS   ?= auto
# Further arguments of `imageport demo`.
ARGS   ?=

VENV   := .venv
BIN    := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest

APT_DEMO := samba
APT_TEST := samba smbclient qemu-utils libsecret-1-0 systemd
APT_KERBEROS := krb5-kdc krb5-admin-server libkrb5-dev gcc libc6-dev python3-dev faketime
NPM_TEST := azurite@3.35.0 @azure-tools/azcopy-linux@10.32.2

SETUP_FILES := pyproject.toml constraints.txt Makefile scripts/system_packages
RUNTIME := $(VENV)/.runtime
DEV     := $(VENV)/.dev
NODE    := .cache/node/.stamp
KERBEROS := $(VENV)/.kerberos

.DEFAULT_GOAL := help
.PHONY: help setup fmt lint types arch unit check test bench soak demo docs clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

# --- set-up --------------------------------------------------------------------------------------

# What `imageport demo` needs: the package with its cloud targets, and Samba if it can be had.
$(RUNTIME): $(SETUP_FILES)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "set-up: Python 3.11 or newer is needed; make PYTHON=...")'
	@start=$$(date +%s) \
	&& { $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || scripts/system_packages must "the virtual environment" python3-venv; } \
	&& { test -x $(BIN)/python || $(PYTHON) -m venv $(VENV); } \
	&& $(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt pip \
	&& $(BIN)/python -m pip install -qq -c constraints.txt -e '.[relay-fast,azure,aws,gcp]' \
	&& scripts/system_packages may "a real SMB server" $(APT_DEMO) \
	&& touch $@ && echo "set-up: runtime ready in $$(( $$(date +%s) - start )) s"

# What the checks and the tests need on top.
$(DEV): $(RUNTIME)
	@start=$$(date +%s) \
	&& $(BIN)/python -m pip install -qq -c constraints.txt --group dev \
	&& scripts/system_packages may "some tests" $(APT_TEST) \
	&& touch $@ && echo "set-up: development ready in $$(( $$(date +%s) - start )) s"

# Microsoft's own emulator and uploader, as judges; without npm's registry the rest still works.
$(NODE): Makefile scripts/node_tools | $(DEV)
	@start=$$(date +%s); scripts/node_tools $(VENV) $(NPM_TEST) \
	&& touch $@ && echo "set-up: azurite and azcopy ready in $$(( $$(date +%s) - start )) s" \
	|| echo "set-up: no Azurite and no azcopy; their tests are skipped" >&2

# A realm of our own and what speaks to it, built from source; without it the shares know NTLM only.
$(KERBEROS): Makefile pyproject.toml constraints.txt | $(DEV)
	@start=$$(date +%s); scripts/system_packages may "Kerberos" $(APT_KERBEROS) \
	&& CFLAGS="-O0 -g0" $(BIN)/python -m pip install -qq -c constraints.txt -e '.[kerberos]' \
	&& touch $@ && echo "set-up: Kerberos ready in $$(( $$(date +%s) - start )) s" \
	|| echo "set-up: no Kerberos; its tests are skipped" >&2

setup: $(DEV) $(NODE) $(KERBEROS) ## make .venv and .cache with everything that checks and tests need

# --- checks --------------------------------------------------------------------------------------

fmt: $(DEV) ## format the code and mend what ruff can mend
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

lint: $(DEV) ## format, style and spelling; changes nothing
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/codespell

types: $(DEV) ## mypy --strict over the five packages
	$(BIN)/mypy

arch: $(DEV) ## import contracts
	$(BIN)/lint-imports --no-logo

unit: $(DEV) ## unit tests only (no I/O, seconds), without those that play every state
	$(PYTEST) -q -n $(JOBS) -m "not (bench or soak or cloud or exhaustive)" tests/unit

check: lint types arch unit ## lint + types + arch + unit: before every commit

test: $(NODE) $(KERBEROS) lint types arch ## the gate: checks and every tier but bench, soak and cloud
	$(PYTEST) -n $(JOBS) --dist loadgroup

bench: $(NODE) ## measure against azcopy on this machine; prints a table
	$(PYTEST) -m bench -s --timeout 3600

# IMAGEPORT_FUZZ_CPU: CPU seconds of the disk format campaign, shared by all cores (3600).
soak: $(NODE) ## long loops: kill -9, fuzz, fault counts
	IMAGEPORT_HYPOTHESIS=soak $(PYTEST) -m soak --timeout 3600

# --- products ------------------------------------------------------------------------------------

demo: $(RUNTIME) ## relay, signer, agent, share and target on this machine move a real image
	@$(BIN)/imageport demo $(ARGS)

docs: $(DEV) ## write the generated pages anew (docs/errors.md)
	$(BIN)/python scripts/error_table.py docs/errors.md

clean: ## remove build products and tool caches (.venv and .cache stay; delete them by hand)
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis .coverage
	find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +
