# Everything on a fresh machine: `make demo`, `make demo-text`, `make demo-table` and `make test`; minutes are of two cores.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# CUDA wheels only where there is an NVIDIA GPU.
REQUIREMENTS ?= $(if $(shell command -v nvidia-smi 2>/dev/null),requirements.txt,requirements-cpu.txt)

.PHONY: demo demo-text demo-table test docs docs-check site clean help

help:  ## list the commands (seconds)
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

demo: $(VENV)/installed  ## train FEX on digit scenes, evaluate it, write a gallery (5 to 9 minutes)
	$(BIN)/python train.py --config=configs/digit_scenes.py --workdir=runs/demo
	$(BIN)/python eval.py --config=configs/digit_scenes.py --workdir=runs/demo

demo-text: $(VENV)/installed  ## the same on short film reviews, word by word (5 minutes)
	$(BIN)/python train.py --config=configs/drawn_reviews.py --workdir=runs/demo_text
	$(BIN)/python eval.py --config=configs/drawn_reviews.py --workdir=runs/demo_text

demo-table: $(VENV)/installed  ## Shapley values of gradient boosting on a table (a minute)
	$(BIN)/python train.py --config=configs/tables_breast_cancer.py --workdir=runs/demo_table
	$(BIN)/python eval.py --config=configs/tables_breast_cancer.py --workdir=runs/demo_table

test: $(VENV)/installed  ## lint, check types and documents, run the tests (20 to 35 minutes)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python scripts/docs.py --check
	$(BIN)/python -m pytest -q -n auto --maxprocesses=4 --dist=worksteal

docs: $(VENV)/installed  ## fill the tables of README.md and docs/ from docs/results (seconds)
	$(BIN)/python scripts/docs.py

docs-check: $(VENV)/installed  ## fail where a document's number is not that of docs/results (seconds)
	$(BIN)/python scripts/docs.py --check

site: $(VENV)-site/installed  ## build the documents as pages in build/site, failing on any fault (1 minute)
	NO_MKDOCS_2_WARNING=1 $(VENV)-site/bin/mkdocs build --strict

# The pages need nothing that computes: the API is read from the source.
$(VENV)-site/installed: requirements-site.txt
	$(PYTHON) -m venv $(VENV)-site
	$(VENV)-site/bin/python -m pip install --quiet --no-compile -r $<
	touch $@

$(VENV)/installed: requirements.txt requirements-cpu.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is $$($(PYTHON) -V), but Python 3.11 or newer is needed: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --no-compile --progress-bar on -r $(REQUIREMENTS)
	touch $@

clean:  ## remove the environment and all runs (seconds)
	rm -rf $(VENV) $(VENV)-site build runs
