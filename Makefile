# Every target works from a fresh clone: the environment in .venv is made when it is missing and
# brought up to date when pyproject.toml, constraints.txt, this file or the C++ kernels change.
# The web page is built anew when its source in lab/ changes, where there is Node.js for it.

PYTHON ?= python3
MODEL ?= smollm2-135m-instruct
PORT ?= 8000

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
INSTALL := $(PIP) install --constraint constraints.txt

# The stamps below are empty files; each says that a part of the environment is as described.
CORE := $(VENV)/.installed-core
TEST := $(VENV)/.installed-test
DOCS := $(VENV)/.installed-docs
DEV := $(VENV)/.installed-dev
PAGE_TOOLS := lab/node_modules/.installed-tools

# A question may hold any character, "$" too: take it as typed and hand it on through the environment.
ifdef PROMPT
override PROMPT := $(value PROMPT)
export PROMPT
endif

BENCHMARKS := kernels decode prefill startup

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help lab test lint page-test format docs bench bench-peers code dev clean

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-11s %s\n", $$1, $$2}' Makefile

lab: $(CORE)  ## serve a small model and its web page; make lab PROMPT="..." asks one question
	@$(BIN)/limner pull $(MODEL) > /dev/null
	@if [ -n "$$PROMPT" ]; then \
		exec $(BIN)/limner generate $(MODEL) -- "$$PROMPT" < /dev/null; \
	fi; \
	$(BIN)/python -m limner.serving.build_page; \
	exec $(BIN)/limner serve $(MODEL) port=$(PORT) log=text

# One thread a worker: several workers that each start a thread for every core slow one another down.
test: lint  ## check style, types and room order, then run the tests
	@$(BIN)/python -m limner.serving.build_page || true
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --maxprocesses 8 $(PYTEST)

lint: $(TEST)  ## ruff, mypy and the order of the rooms
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

page-test: $(PAGE_TOOLS)  ## check and test the source of the web page; needs Node.js
	cd lab && npm run check && npm test

format: $(TEST)  ## let ruff put the code in order
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

docs: $(DOCS)  ## build the pages into docs/_build; a warning is an error
	$(BIN)/sphinx-build -W --keep-going -b html docs docs/_build

bench: $(TEST)  ## measure limner beside its peers on this machine
	@for benchmark in $(BENCHMARKS); do echo "== $$benchmark"; $(BIN)/python -m "benchmarks.$$benchmark" || exit 1; done

bench-peers: $(TEST)  ## install the programs that the benchmarks compare with, into .peers
	$(PIP) install --target .peers --upgrade --no-deps openvino openvino-genai openvino-tokenizers diskcache
	$(PIP) install --target .peers --upgrade --no-deps tiktoken rustbpe
	CMAKE_ARGS="-DGGML_NATIVE=ON -DMTMD_BUILD=OFF" $(PIP) install --target .peers --upgrade --no-deps --no-binary llama-cpp-python llama-cpp-python
	$(BIN)/python -m benchmarks.build_llama_server

code: $(CORE)  ## train a small model on Python's standard library, in a quarter of an hour, and sample from it
	@$(BIN)/python -c "import matplotlib" 2> /dev/null || $(INSTALL) --quiet --editable '.[serve,train]'
	@test -e tokenizers/python || $(BIN)/limner tokenizer train python tokenizers/python size=4096
	@$(BIN)/limner data prepare python tokens/python --tokenizer tokenizers/python
	@$(BIN)/limner pretrain recipes/code.yaml
	@$(BIN)/limner generate runs/code/model seed=1 max_tokens=120 -- "class "

dev: $(DEV)  ## everything a contributor needs, and the checks before each commit
	@if [ -e .git ]; then $(BIN)/pre-commit install; fi

clean:  ## delete what was built; .venv and downloaded models stay
	rm -rf build dist docs/_build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis .coverage
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

# torch comes first and alone, so that no other package can pull in another build of it.
$(CORE): pyproject.toml constraints.txt Makefile hatch_build.py limner/kernels/build.py limner/serving/build_page.py $(wildcard limner/kernels/cpp/*)
	@command -v "$(PYTHON)" > /dev/null || { \
		echo "limner needs Python 3.11 or newer, and there is no $(PYTHON): name one with PYTHON=/path/to/python3" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11) and "limner needs Python 3.11 or newer, and " \
		+ sys.executable + " is " + sys.version.split()[0] + ": name another with PYTHON=/path/to/python3")'
	@echo "Installing limner into $(VENV) (a minute or two the first time)"
	@"$(PYTHON)" -m venv $(VENV)
	@$(PIP) install --quiet --upgrade pip
	@$(INSTALL) torch
	@$(INSTALL) --quiet --editable '.[serve]'
	@touch $@

$(TEST): $(CORE)
	@echo "Installing what the tests need"
	@$(INSTALL) --quiet --group test --group lint
	@$(BIN)/python -m limner.kernels.build --all
	@touch $@

$(DOCS): $(CORE)
	@echo "Installing what the pages need"
	@$(INSTALL) --quiet --group docs
	@touch $@

$(DEV): $(CORE)
	@echo "Installing what contributors need"
	@$(INSTALL) --quiet --group dev
	@$(BIN)/python -m limner.kernels.build --all
	@touch $@ $(TEST) $(DOCS)

$(PAGE_TOOLS): lab/package-lock.json
	cd lab && npm ci
	@touch $@
