# Everything from nothing in a virtual environment of this checkout: make demo, make test.
VENV ?= .venv
PYTHON ?= python3
TORCH ?= torch==2.14.1 torchvision==0.29.1
DATA ?= $(OMNISHARD_DATA)
BIN = $(VENV)/bin
READY = $(VENV)/.ready

.PHONY: demo test setup clean

demo: $(READY)
	$(BIN)/python -m omnishard demo

test: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	OMNISHARD_DATA="$(DATA)" $(BIN)/python -m pytest

setup: $(READY)

$(READY): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -q $(TORCH)
	$(BIN)/python -m pip install --disable-pip-version-check -q -e '.[cpu,dali,dev]'
	touch $(READY)

clean:
	rm -rf $(VENV) demo
