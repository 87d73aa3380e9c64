# The verbs of this repository. `make test` is what CI runs; on a fresh machine it fetches what is missing.
# Needs: Rust 1.95 (stable), Python 3.11, Node 20.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:

TOOLS := $(CURDIR)/.tools
VENV := $(TOOLS)/venv
NODE := $(TOOLS)/node
RUMQTTC := $(TOOLS)/rumqttc
FUZZ_SECONDS ?= 10
# Sanitizers need flags that stable has under this name; the compiler stays the stable one.
FUZZ := RUSTC_BOOTSTRAP=1 PATH="$(TOOLS)/bin:$$PATH" cargo fuzz
FUZZ_TARGETS = $(notdir $(basename $(wildcard protocol/fuzz/fuzz_targets/*.rs)))

.PHONY: help run test lint suite doc layering loom bench load fuzz interop setup setup-apt setup-node setup-python setup-rumqttc setup-fuzz

help: ## These verbs
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-10s %s\n", $$1, $$2 }' Makefile

run: ## Start the broker on 127.0.0.1:8080
	cargo run --release

test: lint suite doc layering loom fuzz interop ## Everything CI checks; installs what is missing

lint: ## Format and clippy
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings

suite: ## The tests of the workspace, those over sockets with stores again
	cargo test --workspace
	TIDEGATE_TEST_STORE=1 cargo test -p tidegate --test behaviour --test cross_protocol --test mqtt_statements --test sessions --test stomp --test takeover --test work_queue

doc: ## The documentation, without warnings
	RUSTDOCFLAGS=-Dwarnings cargo doc --no-deps --workspace

layering: ## protocol must not depend on tokio
	@tree=$$(cargo tree -p tidegate-protocol -e normal --prefix none); \
	if grep -q '^tokio ' <<< "$$tree"; then \
		echo "tidegate-protocol depends on tokio; it must stay free of I/O" >&2; exit 1; fi
	@echo "tidegate-protocol does not depend on tokio"

loom: ## Every interleaving of the outbox; a folder of its own, for --cfg outbox_loom rebuilds all
	RUSTFLAGS="--cfg outbox_loom" CARGO_TARGET_DIR=target/loom CARGO_PROFILE_RELEASE_LTO=off \
		cargo test -p tidegate --test loom_outbox --release

bench: ## Micro benchmarks
	cargo bench -p tidegate-benches

load: ## The broker beside mosquitto over real sockets, about six minutes
	cargo build --release -p tidegate -p tidegate-benches
	target/release/load all

fuzz: setup-fuzz ## Ten seconds of each fuzz target (FUZZ_SECONDS=600 for more)
	@[ -n "$(FUZZ_TARGETS)" ] || { echo "no fuzz targets in protocol/fuzz/fuzz_targets" >&2; exit 1; }
	@for target in $(FUZZ_TARGETS); do \
		echo "== fuzz $$target"; \
		(cd protocol && $(FUZZ) run --sanitizer none $$target -- -max_total_time=$(FUZZ_SECONDS) -timeout=10 -rss_limit_mb=2048); \
	done

interop: setup-apt setup-node setup-python setup-rumqttc ## Outside clients against the broker
	cargo build -p tidegate
	TIDEGATE_BIN=$(CURDIR)/target/debug/tidegate RUMQTTC_AGENT=$(RUMQTTC)/debug/interop-rumqttc \
		NODE_PATH=$(NODE)/node_modules $(VENV)/bin/python clients/interop/run

setup: setup-apt setup-node setup-python setup-rumqttc setup-fuzz ## Fetch what the tests need, into .tools

setup-apt:
	@clients/interop/setup-apt

setup-node: $(NODE)/.stamp
$(NODE)/.stamp: clients/interop/package.json
	mkdir -p $(NODE)
	cp $< $(NODE)/
	cd $(NODE) && npm install --no-package-lock --no-audit --no-fund --ignore-scripts
	touch $@

setup-python: $(VENV)/.stamp
$(VENV)/.stamp: clients/interop/requirements.txt
	python3 -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -r $<
	touch $@

# A folder of its own: what it is built with has nothing to do with the broker.
setup-rumqttc:
	cargo build --quiet --locked --manifest-path clients/interop/rumqttc/Cargo.toml --target-dir $(RUMQTTC)

setup-fuzz: $(TOOLS)/bin/cargo-fuzz
$(TOOLS)/bin/cargo-fuzz:
	cargo install --locked --root $(TOOLS) --version 0.13.1 cargo-fuzz
