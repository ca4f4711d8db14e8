# Every target sets itself up: a virtual environment, torch, the build. Nothing else is needed but Python, g++ and make.
PYTHON     ?= python3
VENV       ?= .venv
TORCH_SPEC ?= torch==2.13.0
BIN         = $(VENV)/bin
PIP         = $(BIN)/python -m pip install --quiet --disable-pip-version-check
# What the native libraries are built from; a change rebuilds them.
NATIVE      = setup.py pyproject.toml CMakeLists.txt $(shell find csrc -type f 2>/dev/null)

.PHONY: demo test lint build wheel abi bench clean

demo: $(VENV)/demo.stamp $(VENV)/build.stamp
	$(BIN)/suffuse demo --check $(ARGS)

test: $(VENV)/test.stamp $(VENV)/build.stamp
	$(BIN)/python -m pytest -n auto --dist worksteal $(ARGS)

lint: $(VENV)/lint.stamp $(VENV)/build.stamp
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/pre-commit run --all-files --show-diff-on-failure
	$(BIN)/torch-abi-audit --check torch python/suffuse

build: $(VENV)/build.stamp

wheel: $(VENV)/torch.stamp
	$(BIN)/python -m pip wheel --no-deps --wheel-dir dist .

bench: $(VENV)/test.stamp $(VENV)/build.stamp
	$(BIN)/python -m benchmarks.run $(ARGS)

clean:
	rm -rf build dist python/suffuse/*.so python/suffuse/build.json $(VENV)/*.stamp

$(VENV)/torch.stamp: Makefile
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) --upgrade pip setuptools wheel
	$(PIP) "$(TORCH_SPEC)" numpy safetensors tqdm pybind11 ninja cmake
	touch $@

# In place, so that a Python edit needs no build and a C++ edit only compiles what changed.
$(VENV)/build.stamp: $(VENV)/torch.stamp $(NATIVE)
	$(PIP) --no-build-isolation --no-deps --editable .
	touch $@

$(VENV)/demo.stamp: $(VENV)/torch.stamp
	$(PIP) scikit-learn pillow
	touch $@

$(VENV)/test.stamp: $(VENV)/demo.stamp
	$(PIP) pytest pytest-xdist hypothesis diffusers transformers torchsde nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm
	touch $@

$(VENV)/lint.stamp: $(VENV)/torch.stamp
	$(PIP) ruff mypy clang-format pre-commit torch-abi-audit
	touch $@
