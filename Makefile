# One command for each thing to do here. `make help` lists them.
# POSIX sh only; works in a directory whose name has spaces, because every path here is relative.

SHELL = /bin/sh
.DEFAULT_GOAL := help
.PHONY: help install up test check bench torture clean

ARGS =
N = 20
BIN = .venv/bin
STAMPS = .venv/.stamps

help: ## Show this.
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/\1|\2/p' Makefile | awk -F '|' '{printf "  make %-9s %s\n", $$1, $$2}'

install: $(STAMPS)/install ## Create .venv and install everything, every file checked against its hash.

up: $(STAMPS)/install ## Install, then start everything. make up ARGS="--port-base 9000"
	@exec $(BIN)/tickgate up $(ARGS)

test: $(STAMPS)/dev ## Run the tests. make test ARGS="tests/unit -x"
	@exec $(BIN)/python -m pytest $(ARGS)

check: $(STAMPS)/dev ## Lint, format, types, layers, and whether the locks are fresh.
	@echo "ruff check";    $(BIN)/ruff check .
	@echo "ruff format";   $(BIN)/ruff format --check .
	@echo "mypy";          $(BIN)/mypy
	@echo "lint-imports";  $(BIN)/lint-imports
	@sh .ci/lock.sh --check

bench: $(STAMPS)/dev ## Run the benchmarks, one after the other.
	@for script in tests/benchmarks/*.py; do \
	  name=$$(basename "$$script" .py); \
	  case $$name in __init__|\*) continue;; esac; \
	  echo "== $$name"; $(BIN)/python -m "tests.benchmarks.$$name" $(ARGS) || exit 1; \
	done

torture: $(STAMPS)/dev ## Kill, cut and fill disks, N times each. make torture N=250
	@TICKGATE_TEST_KILLS=$(N) exec $(BIN)/python -m pytest tests/faults --timeout 0 $(ARGS)

clean: ## Remove .venv. Data directories are not touched.
	@rm -rf .venv

# The stamp is younger than what it was made from: a second run has nothing to do.
$(STAMPS)/install: requirements.lock pyproject.toml
	@sh .ci/venv.sh
	@echo "installing (about 320 MB to download the first time) ..."
	@sh .ci/install.sh requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input \
	  --no-deps --no-build-isolation --no-index --editable .
	@mkdir -p $(STAMPS) && touch $(STAMPS)/install
	@echo "installed in .venv"

$(STAMPS)/dev: requirements-dev.lock $(STAMPS)/install
	@echo "installing what tests and checks need ..."
	@sh .ci/install.sh requirements-dev.lock
	@touch $(STAMPS)/dev
