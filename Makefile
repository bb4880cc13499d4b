# The verbs of the project. Everything lives in .venv, target and dist; `make clean` removes what was built.
#
#   make demo     build, then run a crew of three agents on this engine and on stock CrewAI
#   make test     all that CI runs: lint, types, stub check, Rust tests, wheel smoke test, Python tests
#   make check    the quick part of it: lint, types, stub check
#   make bench    the measurements
#   make fuzz     the property tests, with new examples at each turn
#   make matrix   the Python tests on asyncio and on uvloop, on each of PYTHONS
#   make conformance   CrewAI's own tests, with and without install(), after a large download
#   make conformance-part   those of them that run crews and agents most, with install()
#   make recordings   the recorded requests of CrewAI's OpenAI tests, with its model client and with ours
#   make conformance-memory   those of the memory, kept in a MemoryStore
#   make wheel    a release wheel in dist/
#   make build    the development environment with the compiled core

PYTHON ?= python3
VENV   := .venv
RUN    := $(VENV)/bin/python
CARGO  := $(shell command -v cargo 2>/dev/null)
RUST   := Cargo.toml $(wildcard Cargo.lock) $(shell find src -name '*.rs')

export CREWAI_DISABLE_TELEMETRY := true
export OTEL_SDK_DISABLED := true
export CREWAI_TRACING_ENABLED := false

.PHONY: demo test check conformance conformance-part conformance-memory recordings matrix bench fuzz wheel build clean lint types stubs rust-test python-test smoke
.NOTPARALLEL:
.DELETE_ON_ERROR:

demo: build
	$(RUN) -m fastcrew_async demo

test: lint types stubs rust-test smoke python-test

check: lint types stubs

python-test: build
	$(RUN) -m pytest

conformance: build
	$(RUN) -m tests.conformance

PYTHONS ?= python3.10 python3.11 python3.12 python3.13

matrix: build
	scripts/matrix.sh $(PYTHONS)

conformance-part: build
	$(RUN) -m tests.conformance --part

recordings: build
	$(RUN) -m tests.conformance.recordings

conformance-memory: build
	$(RUN) -m tests.conformance --memory

bench: build
	for file in benchmarks/[a-z]*.py; do echo "== $$file"; $(RUN) $$file || exit 1; done

fuzz: build
	$(RUN) -m pytest -m hypothesis

clean:
	rm -rf target dist .pytest_cache .mypy_cache .ruff_cache .hypothesis fastcrew_async/_core*.so
	rm -f $(VENV)/.core

$(RUN):
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' || \
	  { echo "CrewAI needs Python 3.10 to 3.13 and $(PYTHON) is not: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
	  { echo "no virtual environment could be made; on Debian: apt install python3-venv" >&2; exit 1; }

$(VENV)/.dependencies: pyproject.toml scripts/requirements.py | $(RUN)
	$(RUN) scripts/requirements.py cli serve uvloop dev > $@
	$(RUN) -m pip install --quiet --disable-pip-version-check -r $@

lint: $(VENV)/.dependencies
	$(RUN) -m ruff check .

types: $(VENV)/.dependencies
	$(RUN) -m mypy

ifneq ($(CARGO),)
# One release build serves the development environment and the wheel.
$(VENV)/.core: $(RUST) $(VENV)/.dependencies
	$(RUN) -m maturin develop --release
	@touch $@

build: $(VENV)/.core

lint: lint-rust
lint-rust: $(VENV)/.dependencies
	@cargo fmt --version >/dev/null 2>&1 && cargo clippy --version >/dev/null 2>&1 || \
	  { echo "lint needs rustfmt and clippy: rustup component add rustfmt clippy" >&2; exit 1; }
	cargo fmt --check
	cargo clippy --all-targets --all-features -- -D warnings
.PHONY: lint-rust

stubs: build
	$(RUN) -m mypy.stubtest fastcrew_async._core

rust-test: $(VENV)/.dependencies
	cargo test

dist/.wheel: $(VENV)/.core $(wildcard fastcrew_async/*.py fastcrew_async/*/*.py) README.md
	rm -rf dist
	$(RUN) -m maturin build --release --out dist
	@touch $@

wheel: dist/.wheel

# The environment is outside the checkout, so that what is imported is the installed wheel.
smoke: wheel
	@folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && \
	  $(PYTHON) -m venv "$$folder/env" && \
	  "$$folder/env/bin/pip" install --quiet --disable-pip-version-check dist/*.whl && \
	  cp scripts/smoke.py "$$folder" && cd "$$folder" && env/bin/python smoke.py
else
build: $(VENV)/.dependencies
	@echo "cargo is missing, so there is no compiled core: going on with the pure-Python twins (https://rustup.rs)"

stubs rust-test smoke wheel:
	@echo "cargo is missing: $@ is left out"
endif
