# One command each: `make help` lists them. Every target sets up what it needs in .venv and target/.

PYTHON ?= python3
SYSTEM_PYTHON ?= /usr/bin/python3
BIN := .venv/bin
export VIRTUAL_ENV := $(CURDIR)/.venv
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# The launcher's and the user's settings must not reach the tests.
unexport PYTHONPATH RANK WORLD_SIZE LOCAL_RANK

RUST := $(shell find rust -name '*.rs' -o -name '*.toml')
TORCH_TESTS := $(wildcard tests/test_torch.py tests/test_examples_torch.py tests/test_tensors.py tests/test_bench.py)
# Where torch is, if make test-torch has found one: Gloo then takes part.
BENCH_PYTHON = $(firstword $(wildcard .venv-torch/bin/python) $(BIN)/python)
PYTHON_CODE := conftest.py python examples tests $(wildcard benches)

.DEFAULT_GOAL := help
.PHONY: help demo test test-rust test-python test-torch mutations mutations-sample loom sanitize soak lint bench bench-price bench-scale docs wheel clean

help: ## Say what there is
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

.venv/tools: requirements-dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "isobit needs Python 3.11 or newer: make PYTHON=python3.11 ...")'
	@command -v cargo > /dev/null || { echo "isobit needs Rust: see rust-lang.org/tools/install" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --requirement requirements-dev.txt
	@touch $@

# The package itself stays where it is (editable): only changes of Rust code need a build.
.venv/native: .venv/tools pyproject.toml Cargo.toml Cargo.lock $(RUST)
	$(BIN)/maturin develop --release --locked
	@touch $@

demo: .venv/native ## Train on 1 to 8 ranks, with isobit and the usual way: a table and demo.png
	$(BIN)/python examples/digits/demo.py

test: test-rust test-python test-torch ## Run every test, Rust and Python

test-rust:
	cargo test --workspace --locked

test-python: .venv/native
	$(BIN)/python -m pytest

# With Debian's torch, which only the system's Python sees, in a second environment.
test-torch: .venv/native ## Run the tests with torch, if the system has one (make test does it)
	@if $(SYSTEM_PYTHON) -c 'import sys, venv, torch; sys.exit(sys.version_info < (3, 11))' 2> /dev/null; then \
		$(MAKE) --no-print-directory .venv-torch/tools && .venv-torch/bin/python -m pytest -k torch $(TORCH_TESTS); \
	else \
		echo "Left out: $(TORCH_TESTS), because $(SYSTEM_PYTHON) has no torch."; \
		echo "This brings it: apt-get install -y --no-install-recommends python3-torch python3-venv"; \
	fi

.venv-torch/tools: requirements-torch.txt
	$(SYSTEM_PYTHON) -m venv --system-site-packages .venv-torch
	.venv-torch/bin/pip install --quiet --requirement requirements-torch.txt
	echo '$(CURDIR)/python' > .venv-torch/lib/$$(basename $$(ls -d .venv-torch/lib/python3*))/site-packages/isobit.pth
	@touch $@

mutations: .venv/native ## Break the library in every known way: a test must notice each (some minutes)
	$(BIN)/python tests/mutations/run.py

mutations-sample: .venv/native ## The same, with four of the cheap ones; SEED= picks them
	$(BIN)/python tests/mutations/run.py --sample 4 $(if $(SEED),--seed $(SEED))

loom: ## Check the shared-memory ring and the sleep of ranks in every interleaving
	RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR=target/loom cargo test --locked -p isobit-sys --lib os::models -- --nocapture

sanitize: ## Run the unsafe crate's tests under AddressSanitizer, valgrind and Miri, those that are there
	tests/sanitize.sh

soak: .venv/native ## Show that a long run leaves nothing behind: a table and soak.png (some minutes)
	$(BIN)/python benches/soak.py

lint: .venv/native ## Check formats, lints and types
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo clippy -p isobit --features unchecked,unordered,unrecorded --locked -- -D warnings
	$(BIN)/ruff check $(PYTHON_CODE)
	$(BIN)/ruff format --check $(PYTHON_CODE)
	$(BIN)/mypy --strict python/isobit
	$(BIN)/mypy --strict conftest.py $(wildcard benches/*.py examples/*.py examples/digits/*.py tests/*.py tests/mutations/*.py)
	$(BIN)/python -m pytest -q tests/test_tidy.py

bench: .venv/native target/release/examples/bench_rank ## Measure kernels, goals of one host, and every library here (minutes)
	cargo bench --locked -p isobit-sys --bench kernels
	$(BIN)/isobit run -n 2 benches/host.py
	$(BIN)/isobit run -n 2 benches/bounds.py
	$(BENCH_PYTHON) -m isobit bench --peers --goals --sizes 8:64M:8

# The caller in Rust of `isobit bench`.
target/release/examples/bench_rank: $(RUST)
	cargo build --release --locked -p isobit --example bench_rank
	@touch $@

bench-price: ## Measure what the law, the checks and the recorder cost: isobit against itself without them (minutes)
	$(PYTHON) benches/price.py

bench-scale: ## Plan and simulate thousands of ranks: time, memory, messages, bytes (some minutes)
	cargo bench --locked -p isobit-sys --bench scale

docs: .venv/native ## Build the API reference from the docstrings into dist/docs/
	$(BIN)/pdoc --output-directory dist/docs isobit '!isobit.reference' '!isobit.cli' '!isobit.verify' '!isobit.bench' '!isobit.plan'
	@echo "open dist/docs/isobit.html"

wheel: .venv/tools ## Build a wheel into dist/
	$(BIN)/maturin build --release --locked --out dist
	@ls -l dist

clean: ## Remove everything that was built
	rm -rf .venv .venv-torch target dist demo.png soak.png soak.json .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find python tests examples -name __pycache__ -type d -prune -exec rm -rf {} +
	rm -f python/isobit/_native*.so
