# make quickstart   search, train, evaluate, export, plot and report on the digits, into runs/quickstart;
#                   to be done in minutes, with half of the images and of the epochs of the configs
# make test         lint, format and type check, tests
# make soak         the tests that take minutes, such as many kills at random instants
# make docs         the documentation, into site; warnings are errors
#
# Each makes the virtual environment .venv on first use, from $(PYTHON), which needs to be 3.10, 3.11 or
# 3.12, with exactly the versions of constraints.txt. `make clean` removes it, the results in runs stay.

PYTHON ?= python3
VENV_PYTHON := .venv/bin/python
CPNAS := .venv/bin/cpnas
RUN := runs/quickstart

.PHONY: quickstart quickstart-train quickstart-train_parent test soak docs lint format clean
.DELETE_ON_ERROR:

quickstart: .venv/installed
	$(CPNAS) search --config=digits --config.split.train_images=576 --workdir=$(RUN)/search --data_dir=$(RUN)/data --overwrite
	$(MAKE) --jobs=2 --no-print-directory quickstart-train quickstart-train_parent
	$(CPNAS) export --workdir=$(RUN)/train --output=$(RUN)/export --overwrite
	$(CPNAS) plot --workdir=$(RUN)/search --output=$(RUN)/plots --overwrite
	$(CPNAS) report --workdir=$(RUN)/train --output=$(RUN)/report.html --overwrite
	$(VENV_PYTHON) bin/quickstart.py --folder=$(RUN)

# Child and parent at the same time.
quickstart-train: PRECISION := child
quickstart-train_parent: PRECISION := parent
quickstart-train quickstart-train_parent: quickstart-%: .venv/installed
	$(CPNAS) train --config=digits --config.training.epochs=20 --genotype=$(RUN)/search/genotype.json --precision=$(PRECISION) --workdir=$(RUN)/$* --data_dir=$(RUN)/data --overwrite
	$(CPNAS) evaluate --workdir=$(RUN)/$* --overwrite

test: lint
	$(VENV_PYTHON) -m pytest --numprocesses=2 --dist=worksteal --durations=25

soak: .venv/installed
	$(VENV_PYTHON) -m pytest -m soak --numprocesses=2

docs: .venv/docs
	$(VENV_PYTHON) -m mkdocs build --strict

lint: .venv/installed
	$(VENV_PYTHON) -m ruff check
	$(VENV_PYTHON) -m ruff format --check
	$(VENV_PYTHON) -m mypy

format: .venv/installed
	$(VENV_PYTHON) -m ruff check --fix
	$(VENV_PYTHON) -m ruff format

clean:
	rm -rf .venv build site *.egg-info .pytest_cache .ruff_cache .mypy_cache

# The stamp is written last, so an interrupted installation starts over. The variable, unlike the
# option, also pins what pip uses to build packages.
.venv/installed: setup.cfg pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 13))' 2>/dev/null || \
		{ echo "cpnas_tf needs Python 3.10, 3.11 or 3.12, and $(PYTHON) is not: try make PYTHON=python3.11" >&2; exit 1; }
	$(PYTHON) -m venv --clear .venv
	PIP_CONSTRAINT=constraints.txt $(VENV_PYTHON) -m pip install --use-pep517 --editable '.[test]'
	touch $@

.venv/docs: .venv/installed
	PIP_CONSTRAINT=constraints.txt $(VENV_PYTHON) -m pip install --use-pep517 --editable '.[docs]'
	touch $@
