# make demo installs lord-fast, trains on the embedded data and writes runs/demo/report.html.
# make test installs what the tests need and runs all of them.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt

NATIVE := $(wildcard kernels/native/*.cpp kernels/native/*.h)
CXX_FILES := $(NATIVE) $(wildcard tests/native/*.cpp)
SOURCES := pyproject.toml setup.py constraints.txt CMakeLists.txt $(NATIVE)

.PHONY: demo test lint format bench clean

demo: $(VENV)/.installed
	$(BIN)/lord-fast demo --run runs/demo

test: $(VENV)/.tested
	$(BIN)/python -m pytest tests
	$(BIN)/python -m pytest tests/interpreter
	$(BIN)/python -m pytest tests/gate

lint: $(VENV)/.tested
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $(CXX_FILES)

format: $(VENV)/.tested
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CXX_FILES)

bench: $(VENV)/.tested
	$(BIN)/python -m pytest bench --benchmark-only

clean:
	rm -rf $(VENV) build *.egg-info

$(VENV)/.created:
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.installed: $(VENV)/.created $(SOURCES)
	$(INSTALL) --editable .
	touch $@

$(VENV)/.tested: $(VENV)/.installed
	$(INSTALL) --editable '.[dev,triton,onnx]'
	touch $@
