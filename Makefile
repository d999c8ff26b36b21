# The two commands to begin with: `make demo` and `make test`.

# An installed Rust need not be on the path of the shell that runs make.
export PATH := $(PATH):$(or $(CARGO_HOME),$(HOME)/.cargo)/bin

# The chain of causes says it; a backtrace of the test harness below it does not.
export RUST_LIB_BACKTRACE := 0

CARGO ?= cargo

# jemalloc runs where pages are as large as where it was built, or smaller: kernels for aarch64 have up to 64 KiB.
ifeq ($(shell uname -m),aarch64)
export JEMALLOC_SYS_WITH_LG_PAGE ?= 16
endif

# One set of packages for every command: another one would mean other features of the libraries, and building them a second
# time. So would programs without a test among them, as what only tests depend on asks for features, too.
ALL := --workspace --locked

# What is built for use names its commit. Tests do not, so that a commit costs them no new programs, and a source archive has none.
build dist demo demo-monitoring bench: export MILLRACE_COMMIT ?= $(shell [ -e .git ] && git rev-parse --short HEAD)

.DEFAULT_GOAL := help
.PHONY: help demo demo-monitoring test test-heavy bench docs check up down build dist dist-check bootstrap servers clean

help: ## Lists what there is to make
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: bootstrap servers ## Shows the whole way from files to Elasticsearch on this machine, in about a minute (KEEP=1 leaves it running)
	$(CARGO) build $(ALL) --release --bin shipper --bin indexer --bin demo
	@target/release/demo

demo-monitoring: export TESTS := 1
demo-monitoring: bootstrap servers ## Ten hosts and four faults: what the page, /pipeline, the audit and the alerts say of each, in about five minutes
	$(CARGO) build $(ALL) --release --bin shipper --bin indexer --bin demo-monitoring
	@target/release/demo-monitoring

# Most of a test is waiting for servers, so more run at a time than there are cores.
test: export TESTS := 1
test: check servers ## Checks, then tests the programs end to end on a real Kafka and a real Elasticsearch
	$(CARGO) build $(ALL) --bins --test end_to_end
	RUST_TEST_THREADS=$${RUST_TEST_THREADS:-8} $(CARGO) test $(ALL) --test end_to_end

test-heavy: bootstrap servers ## The long faults on top of `make test`: a hundred kills, long outages, a minute of fuzzing for each parser
	$(CARGO) build $(ALL) --bins --test heavy
	$(CARGO) test $(ALL) --test heavy
	scripts/fuzz 60

bench: export BENCH := 1
bench: bootstrap servers ## Measures both programs beside kcat, and stores the figures in docs/benchmarks (BENCH_RECORDS, BENCH_RUNS, BENCH_ONLY; BENCH_VECTOR, BENCH_FLUENT_BIT and BENCH_FILEBEAT name programs to measure, too)
	$(CARGO) build $(ALL) --release --bin shipper --bin indexer --bin bench
	@target/release/bench

docs: bootstrap ## Writes docs/configuration.md anew, from the programs
	$(CARGO) build $(ALL) --bins
	@{ sed '/^## /,$$d' docs/configuration.md; for program in shipper indexer; do \
	  printf '## %s\n\n' $$program; target/debug/$$program schema --markdown; echo; done; } >docs/configuration.new
	@mv docs/configuration.new docs/configuration.md

check: bootstrap ## Format, lints, licences and bans, unit tests
	$(CARGO) fmt --all -- --check
	$(CARGO) clippy $(ALL) --all-targets -- -D warnings
	$(CARGO) test $(ALL) --lib --bin shipper --test dependencies

up: bootstrap servers ## Starts Kafka and Elasticsearch: with Docker if an engine answers, else as Java processes
	$(CARGO) build $(ALL) --bin stack
	@target/debug/stack up

down: ## Stops what `make up` started
	$(CARGO) build $(ALL) --bin stack
	@target/debug/stack down

build: bootstrap ## Builds shipper and indexer for use, in target/release
	$(CARGO) build $(ALL) --release --bin shipper --bin indexer

dist: build ## Packs both programs: archives and packages for Debian in dist/, with their checksums
	@scripts/dist

dist-check: export TESTS := 1
dist-check: dist servers ## Installs, runs, upgrades and removes the packages in a clean Debian (takes root and mmdebstrap)
	$(CARGO) build $(ALL) --bins --test packages
	$(CARGO) test $(ALL) --test packages

bootstrap: ## Checks for compilers, Java and Maven, and installs what is missing where it may
	@scripts/bootstrap

servers: bootstrap ## Fetches Kafka and Elasticsearch into the cache, once
	@scripts/servers >/dev/null

clean: ## Removes what was built, and the stack with its data
	@[ ! -e .run ] || $(MAKE) down
	@# Where the checkout is closed to other users, root's Elasticsearch keeps its data elsewhere.
	@for data in .run/*/elasticsearch; do [ ! -L "$$data" ] || rm -rf "$$(readlink "$$data")"; done
	$(CARGO) clean
	rm -rf .run
