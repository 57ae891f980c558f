# Everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python

.PHONY: demo test fuzz methods lint bench clean

demo: $(VENV)/installed
	$(RUN) -m pyjlode fit examples/data/hudson_bay_lynx_hare.csv --out demo
	@echo "the picture is demo/fit.png"

# Two processes: each has a Julia of its own.
test: $(VENV)/installed
	$(RUN) -m pytest -n 2 --dist loadgroup

# Many times as many random graphs as the tests have.
fuzz: $(VENV)/installed
	PYJLODE_RANDOM_GRAPHS=2000 $(RUN) -m pytest tests/test_random_graphs.py

# Every method of the catalogue, where the tests have one of each package: a quarter of an hour. Most
# solves here are shorter than the compilation of their method.
methods: $(VENV)/installed
	PYJLODE_ALL_METHODS=1 PYTHON_JULIACALL_OPTIMIZE=1 $(RUN) -m pytest \
		tests/test_methods.py tests/test_method_accuracy.py tests/test_ddeint.py

lint: $(VENV)/installed
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

bench: $(VENV)/installed
	$(RUN) -m pip install --quiet --constraint constraints.txt jax diffrax torchode
	$(RUN) benchmarks/first_gradient.py
	$(RUN) -m benchmarks

# constraints.txt keeps torch at a release that was tried.
$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) demo
