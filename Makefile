# Everything on a fresh machine: `make demo`, `make demo-text` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# CUDA wheels only where there is an NVIDIA GPU.
REQUIREMENTS ?= $(if $(shell command -v nvidia-smi 2>/dev/null),requirements.txt,requirements-cpu.txt)

.PHONY: demo demo-text test clean help

help:  ## list the commands
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

demo: $(VENV)/installed  ## train FEX on digit scenes, evaluate it, write a gallery
	$(BIN)/python train.py --config=configs/digit_scenes.py --workdir=runs/demo
	$(BIN)/python eval.py --config=configs/digit_scenes.py --workdir=runs/demo

demo-text: $(VENV)/installed  ## the same on short film reviews, word by word
	$(BIN)/python train.py --config=configs/drawn_reviews.py --workdir=runs/demo_text
	$(BIN)/python eval.py --config=configs/drawn_reviews.py --workdir=runs/demo_text

test: $(VENV)/installed  ## run the tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest -q -n auto --maxprocesses=4 --dist=loadfile --no-loadscope-reorder

$(VENV)/installed: requirements.txt requirements-cpu.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is $$($(PYTHON) -V), but Python 3.11 or newer is needed: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --progress-bar on -r $(REQUIREMENTS)
	touch $@

clean:  ## remove the environment and all runs
	rm -rf $(VENV) runs
