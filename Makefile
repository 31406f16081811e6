# make demo       set up, then verify real networks          make test   set up, then the whole test suite
# make thorough   the same with every case of what make test tries in part: all combinations, more random networks
# make lint       ruff, mypy, clang-format                    make bench  benchmarks on this machine, JSON to RESULTS
#                                                             BENCH="": those of much memory and time too
# make docs       the documentation's site, in build/site; a warning is an error
# make performance JSON="FILE FILE"   the tables of docs/performance.md from the JSON of make bench
# make compare    bounds and verdicts beside other tools, where they are installed (docs/comparison.md), JSON to RESULTS
# make fuzz       hostile files and random networks, until stopped or for MINUTES=...; prints how to replay a failure
# make gpu        on a GPU machine, without network: gpu-build, gpu-test and gpu-bench, JSON to RESULTS
# make gpu-sanitize   there, after gpu-build: the tests of ops under compute-sanitizer, its reports to RESULTS
# make wheel      one wheel for every Python and torch that is supported, in dist/
# make cuda-check where nvcc is, GPU or not: the wheel with CUDA, built against the oldest torch, checked there and with
#                 the newest (10 GB of packages, deleted at the end); ZONOCUDA_CUDA=0: without CUDA
# make clean
#
# PYTHON=python   uses an environment that already has torch (>= 2.11) and the other packages, and installs nothing.

VENV := .venv
CONSTRAINTS := constraints.txt
MINUTES ?= inf
RESULTS ?= $(if $(OUT),$(OUT),benchmarks/results)
BUILD_TOOLS := setuptools wheel ninja numpy
BENCH ?= not slow

GPU_PYTHON ?= python3
GPU_TESTS := tests/ops tests/domains tests/verifier tests/nonsmooth
SANITIZED_TESTS := tests/ops/test_every_op.py tests/ops/test_in_place.py -m gpu -p no:cacheprovider \
    -k "values_are or gradients_are or bit_for_bit"
SANITIZE := --kernel-name kernel_substring=zonocuda --error-exitcode 1 --print-limit 20

ifeq ($(origin PYTHON),undefined)
PYTHON := $(VENV)/bin/python
SETUP := $(VENV)/.installed
TOOLS := $(SETUP)
PYTEST_FLAGS ?= -n auto --dist worksteal
else
SETUP := in-place
endif

SOURCES := setup.py pyproject.toml $(wildcard csrc/*.cpp csrc/*/*.cpp csrc/*/*.h csrc/*/*.cu csrc/*/*.cuh)

.PHONY: demo test thorough docs fuzz lint bench compare performance gpu gpu-build gpu-test gpu-bench gpu-sanitize wheel cuda-check in-place
.PHONY: clean format

demo: $(SETUP)
	$(PYTHON) examples/demo.py

test: $(SETUP)
	$(PYTHON) -m pytest $(PYTEST_FLAGS)

thorough: $(SETUP)
	ZONOCUDA_TEST_THOROUGH=1 $(PYTHON) -m pytest $(PYTEST_FLAGS)

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
	$(PYTHON) -m pytest benchmarks -m "$(BENCH)" --benchmark-only --ignore=benchmarks/bench_networks.py --ignore=benchmarks/peers \
	    --benchmark-json=$(RESULTS)/$$($(PYTHON) -m benchmarks.machine).json
	$(PYTHON) -m pytest benchmarks/bench_networks.py --benchmark-only \
	    --benchmark-json=$(RESULTS)/$$($(PYTHON) -m benchmarks.machine)-networks.json

docs: $(SETUP)
	$(PYTHON) -m mkdocs build --strict

compare: $(SETUP)
	mkdir -p $(RESULTS)
	$(PYTHON) -m pytest benchmarks/peers --benchmark-only -p no:cacheprovider \
	    --benchmark-json=$(RESULTS)/compare-$$($(PYTHON) -m benchmarks.machine).json
	$(PYTHON) -m benchmarks.peers.render $(RESULTS)/compare-$$($(PYTHON) -m benchmarks.machine).json

performance: $(SETUP)
	$(PYTHON) -m benchmarks.render $(JSON)

gpu:
	$(MAKE) gpu-build
	$(MAKE) gpu-test
	$(MAKE) gpu-bench

# For the GPU that is there alone: a build for all architectures takes longer.
gpu-build:
	TORCH_CUDA_ARCH_LIST="$${TORCH_CUDA_ARCH_LIST:-$$($(GPU_PYTHON) -m benchmarks.machine capability)}" \
	    $(MAKE) in-place PYTHON=$(GPU_PYTHON) ZONOCUDA_CUDA=1
	$(GPU_PYTHON) -m zonocuda info

gpu-test:
	$(GPU_PYTHON) -m pytest $(GPU_TESTS) -m gpu -p no:cacheprovider

gpu-bench:
	mkdir -p $(RESULTS)
	$(GPU_PYTHON) -m pytest benchmarks -m gpu --benchmark-only -p no:cacheprovider \
	    --benchmark-json=$(RESULTS)/$$($(GPU_PYTHON) -m benchmarks.machine cuda).json

# Every tensor in memory of its own, which torch's cache would hide, so that an index that leaves one is seen.
gpu-sanitize:
	mkdir -p $(RESULTS)
	PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer --tool memcheck $(SANITIZE) \
	    --log-file $(RESULTS)/memcheck.txt $(GPU_PYTHON) -m pytest $(SANITIZED_TESTS)
	compute-sanitizer --tool racecheck $(SANITIZE) \
	    --log-file $(RESULTS)/racecheck.txt $(GPU_PYTHON) -m pytest $(SANITIZED_TESTS)

wheel: $(TOOLS)
	PYTHON=$(PYTHON) scripts/build_wheel

cuda-check:
	ZONOCUDA_CUDA=$${ZONOCUDA_CUDA:-1} scripts/check_wheel

# The package built in place against the torch that PYTHON has. An extension for one Python alone would be imported first.
in-place:
	rm -f zonocuda/_C.*.so
	ZONOCUDA_CUDA=$(or $(ZONOCUDA_CUDA),auto) $(PYTHON) -m pip install --no-build-isolation --no-deps -e .

$(VENV)/bin/python:
	python3 -m venv $(VENV)
	$(VENV)/bin/python -m pip install --upgrade pip

$(VENV)/.installed: $(VENV)/bin/python $(SOURCES) $(CONSTRAINTS)
	$(VENV)/bin/python -m pip install -c $(CONSTRAINTS) $(BUILD_TOOLS) torch
	rm -f zonocuda/_C.*.so
	$(VENV)/bin/python -m pip install -c $(CONSTRAINTS) --no-build-isolation -e '.[test,lint,examples,wheel,docs]'
	touch $@

clean:
	rm -rf build dist *.egg-info zonocuda/*.so $(VENV) .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
