# The commands of the project; `make help` lists them.
.DEFAULT_GOAL := help
# An active environment's python first (its torch is kept), then the system's.
PYTHON ?= $(shell for p in $(if $(VIRTUAL_ENV)$(CONDA_PREFIX),python) python3.11 python3.12 python3.10 python3.13 python3 python; do \
	$$p -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1 && echo $$p && break; done)
VENV ?= .venv
PY := $(VENV)/bin/python
WORKERS ?= $(shell nproc 2>/dev/null || echo 2)
# One thread for each test process: the processes share the cores.
PYTEST := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(PY) -m pytest -n $(WORKERS) --dist worksteal

.PHONY: help env data quickstart learn claims zoo test test-fast test-gpu sanitize fuzz fuzz-sanitize wheel check-wheel check-wheel-install lint clean

help: ## list the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

env: ## make .venv with the whole stack and build ops_dcn (a second call does nothing)
	@if [ -z "$(PYTHON)" ]; then echo 'error: Python is missing: expected 3.10 to 3.13 in PATH; install one (Debian/Ubuntu: apt-get install python3 python3-venv; with uv, without root: uv python install 3.11 && make env PYTHON=$$(uv python find 3.11)) or call make env PYTHON=/path/to/python3.11' >&2; exit 2; fi
	@$(PYTHON) tools/dev/make_env.py --venv $(VENV)

data: env ## write the mini data sets to data/mini
	@$(PY) tools/make_mini_data.py --root data/mini --sets coco imagenet ade nuscenes

quickstart: data ## train and evaluate Mask R-CNN with FlashInternImage-pico, about 10 minutes
	@$(PY) tools/dev/quickstart.py

learn: data ## train the mini systems that changed to their thresholds, with controls; SYSTEMS="..." picks, AGAIN=1 trains all
	@$(PY) tools/dev/learn.py $(SYSTEMS) $(if $(AGAIN),--again)

claims: data ## try the papers' claims at mini size: a table, a picture, docs/claims.md; CLAIMS="..." trains for some, AGAIN=1 trains all
	@OMP_NUM_THREADS=1 $(PY) tools/dev/claims.py $(CLAIMS) $(if $(AGAIN),--again)

zoo: env ## regenerate docs/model_zoo.md and docs/fidelity.md from docs/model_zoo.json
	@$(PY) tools/dev/model_zoo.py
	@mkdir -p work_dirs && $(PY) tools/fidelity.py --json work_dirs/fidelity.json --write docs/fidelity.md

test: env ## all tests (what CI runs)
	@$(PYTEST) tests

test-fast: env ## the tests to run while working, 3 minutes
	@$(PYTEST) tests -m "not slow and not gpu"

test-gpu: env ## the tests that need a CUDA device
	@$(PY) -m pytest tests -m gpu

sanitize: env ## the golden cases on a CUDA device under compute-sanitizer (memcheck, racecheck, initcheck)
	@command -v compute-sanitizer >/dev/null || { echo "error: compute-sanitizer is missing: expected it in PATH; it is part of the CUDA toolkit" >&2; exit 2; }
	@$(PY) -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' || { echo "error: no CUDA device: the kernels cannot be run here" >&2; exit 2; }
	@for tool in memcheck racecheck initcheck; do echo "compute-sanitizer: $$tool"; \
		PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer --tool $$tool --error-exitcode 1 \
			$(PY) -m pytest -q tests/ops_dcn/test_cuda.py -m gpu -k golden || exit 1; done

fuzz: env ## 20,000 random legal and 5,000 illegal calls of the operators
	@$(PY) tools/dev/fuzz_ops.py --legal 20000 --illegal 5000

fuzz-sanitize: env ## the same, 3,000 and 1,000 calls, with AddressSanitizer and UBSan in the CPU library
	@OPS_DCN_SANITIZE=1 OPS_DCN_CUDA=0 $(PY) setup.py -q build --build-base build/sanitize --build-lib build/sanitize/lib
	@rm -rf build/sanitize/lib/tools && cp -r tools build/sanitize/lib/
	@LD_PRELOAD="$$(c++ -print-file-name=libasan.so) $$(c++ -print-file-name=libubsan.so)" \
		ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
		$(PY) build/sanitize/lib/tools/dev/fuzz_ops.py --legal 3000 --illegal 1000

# NVRTC of CUDA 12: what it compiles runs with older drivers than what CUDA 13 compiles.
NVRTC := $(or $(OPS_DCN_NVRTC),build/nvrtc/nvidia/cuda_nvrtc/lib)

wheel: env ## one wheel with the CPU and the CUDA library in dist/; needs neither nvcc nor a GPU
	@[ -d $(NVRTC) ] || $(PY) -m pip install -q --no-deps --target build/nvrtc -r requirements/wheel.txt
	@rm -rf dist build/lib* build/bdist.*
	@OPS_DCN_CUDA=1 OPS_DCN_NVRTC=$(NVRTC) $(PY) -m pip wheel --no-build-isolation --no-deps -w dist \
		--config-settings=--build-option=--plat-name=manylinux_2_28_$$(uname -m) .

check-wheel: ## audit the wheel in dist/: symbols, floors of torch and glibc, contents
	@$(PY) tools/dev/check_wheel.py $(or $(wildcard dist/*.whl),dist/none.whl)

check-wheel-install: ## the same, and its self test in a bare environment with the torch of .venv
	@$(PY) tools/dev/check_wheel.py $(or $(wildcard dist/*.whl),dist/none.whl) --install \
		--torch $$($(PY) -c 'import pathlib, torch; print(pathlib.Path(torch.__file__).parents[1])')

lint: env ## style
	@$(PY) -m ruff check .

clean: ## remove what building and running left behind (keeps .venv and data)
	@rm -rf build dist *.egg-info work_dirs .pytest_cache .ruff_cache ops_dcn/*.so
	@find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
