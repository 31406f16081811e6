# make demo       set up, then verify real networks          make test   set up, then the whole test suite
# make lint       ruff, mypy, clang-format                    make bench  benchmarks on this machine, JSON to RESULTS
#                                                             BENCH="": those of much memory and time too
# make performance JSON="FILE FILE"   the tables of docs/performance.md from the JSON of make bench
# make fuzz       hostile files and random networks, until stopped or for MINUTES=...; prints how to replay a failure
# make gpu        on a GPU machine, without network: build in place, GPU tests and benchmarks, JSON to RESULTS
# make cuda-check where nvcc is: compile the CUDA kernels and load them, GPU or not
# make clean
#
# PYTHON=python   uses an environment that already has torch (>= 2.11) and the other packages, and installs nothing.

VENV := .venv
CONSTRAINTS := constraints.txt
MINUTES ?= inf
RESULTS ?= $(if $(OUT),$(OUT),benchmarks/results)
BUILD_TOOLS := setuptools wheel ninja pybind11 numpy
BENCH ?= not slow

ifeq ($(origin PYTHON),undefined)
PYTHON := $(VENV)/bin/python
SETUP := $(VENV)/.installed
PYTEST_FLAGS ?= -n auto --dist worksteal
else
SETUP := in-place
endif

SOURCES := setup.py pyproject.toml $(wildcard csrc/*.cpp csrc/*/*.cpp csrc/*/*.h csrc/*/*.cu csrc/*/*.cuh)

.PHONY: demo test fuzz lint bench performance gpu cuda-check in-place clean format

demo: $(SETUP)
	$(PYTHON) examples/demo.py

test: $(SETUP)
	$(PYTHON) -m pytest $(PYTEST_FLAGS)

fuzz: $(SETUP)
	$(PYTHON) -m tests.fuzz --minutes $(MINUTES)

lint: $(SETUP)
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy
	git ls-files 'csrc/*' 'tests/csrc/*.h' 'tests/csrc/*.cpp' | xargs $(dir $(PYTHON))clang-format --dry-run --Werror

format: $(SETUP)
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .
	git ls-files 'csrc/*' 'tests/csrc/*.h' 'tests/csrc/*.cpp' | xargs $(dir $(PYTHON))clang-format -i

bench: $(SETUP)
	mkdir -p $(RESULTS)
	$(PYTHON) -m pytest benchmarks -m "$(BENCH)" --benchmark-only --ignore=benchmarks/bench_networks.py \
	    --benchmark-json=$(RESULTS)/$$($(PYTHON) -m benchmarks.machine).json
	$(PYTHON) -m pytest benchmarks/bench_networks.py --benchmark-only \
	    --benchmark-json=$(RESULTS)/$$($(PYTHON) -m benchmarks.machine)-networks.json

performance: $(SETUP)
	$(PYTHON) -m benchmarks.render $(JSON)

gpu:
	$(MAKE) in-place PYTHON=$(or $(GPU_PYTHON),python3) ZONOCUDA_CUDA=1
	mkdir -p $(RESULTS)
	$(or $(GPU_PYTHON),python3) -m pytest tests/ops tests/domains tests/verifier tests/nonsmooth -m gpu -p no:cacheprovider
	$(or $(GPU_PYTHON),python3) -m pytest benchmarks -m gpu --benchmark-only -p no:cacheprovider \
	    --benchmark-json=$(RESULTS)/$$($(or $(GPU_PYTHON),python3) -m benchmarks.machine cuda).json

cuda-check: $(SETUP)
	rm -rf build/cuda-check
	ZONOCUDA_CUDA=1 $(PYTHON) setup.py -q build_ext --build-lib build/cuda-check --build-temp build/cuda-temp
	cp -r zonocuda build/cuda-check/sources
	find build/cuda-check/sources -name '*.so' -delete
	cp build/cuda-check/zonocuda/*.so build/cuda-check/sources/
	rm -rf build/cuda-check/zonocuda && mv build/cuda-check/sources build/cuda-check/zonocuda
	cd build/cuda-check && $(abspath $(PYTHON)) -m zonocuda info > info.txt && cat info.txt && grep -q 'CUDA kernels [0-9]' info.txt

# The package built in place against the torch that PYTHON has.
in-place:
	ZONOCUDA_CUDA=$(or $(ZONOCUDA_CUDA),auto) $(PYTHON) -m pip install --no-build-isolation --no-deps -e .

$(VENV)/bin/python:
	python3 -m venv $(VENV)
	$(VENV)/bin/python -m pip install --upgrade pip

$(VENV)/.installed: $(VENV)/bin/python $(SOURCES) $(CONSTRAINTS)
	$(VENV)/bin/python -m pip install -c $(CONSTRAINTS) $(BUILD_TOOLS) torch
	$(VENV)/bin/python -m pip install -c $(CONSTRAINTS) --no-build-isolation -e '.[test,lint,examples]'
	touch $@

clean:
	rm -rf build dist *.egg-info zonocuda/*.so $(VENV) .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
