# Everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python

.PHONY: demo test fuzz lint bench clean

demo: $(VENV)/installed
	$(RUN) -m pyjlode fit examples/data/hudson_bay_lynx_hare.csv --out demo
	@echo "the picture is demo/fit.png"

test: $(VENV)/installed
	$(RUN) -m pytest

# Twenty times as many random graphs as the tests have.
fuzz: $(VENV)/installed
	PYJLODE_RANDOM_GRAPHS=2000 $(RUN) -m pytest tests/test_random_graphs.py

lint: $(VENV)/installed
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

bench: $(VENV)/installed
	$(RUN) -m pip install --quiet jax diffrax torchode
	$(RUN) benchmarks/first_gradient.py
	$(RUN) benchmarks/gradient.py
	$(RUN) benchmarks/independent.py

# constraints.txt keeps torch at a release that was tried.
$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) demo
