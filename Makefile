# make demo installs lord-fast, trains on the embedded data and writes runs/demo/report.html.
# make test installs what the tests need and runs all of them.
# make soak runs the long form of the reliability tests. It takes hours: SOAK_MINUTES of training.
# make docs builds the docs site in build/site. Broken links are errors.
# make audit looks the pinned dependencies up in a database of vulnerabilities, over the network.
PYTHON ?= python3
VENV ?= .venv
SOAK_MINUTES ?= 120
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt

NATIVE := $(wildcard kernels/native/*.cpp kernels/native/*.h)
CXX_FILES := $(NATIVE) $(wildcard tests/native/*.cpp)
SOURCES := pyproject.toml setup.py constraints.txt CMakeLists.txt $(NATIVE)

.PHONY: demo test lint format docs bench soak audit clean

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

docs: $(VENV)/.documented
	DISABLE_MKDOCS_2_WARNING=true NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

bench: $(VENV)/.tested
	$(BIN)/python -m pytest bench --benchmark-only

soak: $(VENV)/.tested
	LORD_FAST_CRASH_POINTS=1000 $(BIN)/python -m pytest tests/test_reliability_crash.py
	LORD_FAST_EXAMPLES=10000 $(BIN)/python -m pytest tests/test_battery_parsers.py
	$(BIN)/python -m tests.soak.kills --count 200
	$(BIN)/python -m tests.soak.full_disk
	$(BIN)/python -m tests.soak.damage --count 1000
	tests/soak/sanitizers.sh $(BIN)/python
	$(BIN)/python -m tests.soak.mutations
	$(BIN)/python -m tests.soak.classes
	$(BIN)/python -m tests.soak.processes --launches 50 --kills 5
	$(BIN)/python -m tests.soak.growth --minutes $(SOAK_MINUTES)

audit:
	$(PYTHON) -m venv $(VENV)/audit
	$(VENV)/audit/bin/python -m pip install --quiet pip-audit
	$(VENV)/audit/bin/pip-audit --requirement constraints.txt --no-deps --disable-pip

clean:
	rm -rf $(VENV) build *.egg-info

$(VENV)/.created:
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.installed: $(VENV)/.created $(SOURCES)
	$(INSTALL) --editable .
	touch $@

$(VENV)/.tested: $(VENV)/.installed
	$(INSTALL) --editable '.[dev,triton,onnx,heif]'
	touch $@

$(VENV)/.documented: $(VENV)/.installed
	$(INSTALL) --editable '.[docs]'
	touch $@
