# make run, make test, make lab: each sets up .venv first (nothing to do when it is there).
# ARGS passes flags on: make run ARGS="--smoke". PYTHON names another Python: make run PYTHON=python3.13
PYTHON ?= python3
ARGS ?=
SET_UP = $(PYTHON) -I workbench/install.py --extras
WORKERS = -n logical --maxprocesses 8

.DEFAULT_GOAL := help
.PHONY: help run test lab pins clean

help:  ## Say what can be made
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST)

run:  ## Train an xLSTM on traffic counts and leave a report with its gates
	@$(SET_UP) lab,nxai
	@.venv/bin/workbench demo $(ARGS)

test:  ## Run the tests
	@$(SET_UP) lab,nxai,cluster,dev
	@.venv/bin/python -m pytest $(WORKERS) $(ARGS)

lab:  ## Open JupyterLab at the first notebook
	@$(SET_UP) lab,nxai
	@.venv/bin/workbench lab $(ARGS)

# torch stays where it is, because machines keep a build of it: make pins TORCH=2.14.1 moves it.
TORCH ?= $(shell sed -n 's/^torch==//p' constraints.txt)
# From soupsieve 3 on, Python 3.11.0 to 3.11.4 is refused, and Debian 12 has 3.11.2.
HOLD = 'torch==$(TORCH)' 'soupsieve<3'
pins:  ## Resolve the newest versions afresh and write constraints.txt
	@set -e; folder=$$(mktemp -d); trap 'rm -rf "$$folder"' EXIT; \
	printf '%s\n' $(HOLD) > "$$folder/hold.txt"; \
	$(PYTHON) -m venv "$$folder/venv"; \
	"$$folder/venv/bin/pip" install --quiet --constraint "$$folder/hold.txt" --editable '.[lab,nxai,cluster,dev]'; \
	{ sed -n '/^#/p' constraints.txt; \
	  "$$folder/venv/bin/pip" freeze --exclude-editable | sed 's/+.*//'; } > "$$folder/constraints.txt"; \
	cp "$$folder/constraints.txt" constraints.txt

clean:  ## Remove .venv, and nothing else
	rm -rf .venv
