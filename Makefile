# Everything that one does with Prism. `make` alone lists it.
# Nothing has to be installed beforehand: each target begins with scripts/install-deps, which is quick when all is there.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules --no-print-directory

JOBS ?= $(shell nproc)
CLANG = $(shell scripts/install-deps --clang)
CTEST_ARGS ?=
SECONDS ?= 60

# configure-and-build, by preset: $(call build,PRESET[,TARGETS])
define build
	scripts/install-deps
	@mkdir -p build/$(1)
	cmake --preset $(1) -DCMAKE_CXX_COMPILER=clang++-$(CLANG) > build/$(1)/configure.log || { cat build/$(1)/configure.log; exit 1; }
	cmake --build --preset $(1) -j $(JOBS) $(if $(2),--target $(2))
endef

.PHONY: help
help: ## List the targets
	@echo 'Prism: make TARGET [VARIABLE=value ...]'; echo
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | awk -F'\t' '{printf "  %-10s %s\n", $$1, $$2}'
	@echo; echo 'Variables:'
	@grep -hE '^#\? ' $(MAKEFILE_LIST) | sed 's/^#? /  /'

#? FILES="a b"       run: files to publish; default: large ones found on this machine
#? BACKENDS=real     run: on Kafka, PostgreSQL and S3, which it starts, in place of embedded twins
#? ONCE=1            run: end after the demonstration, with 0 only if everything matched
#? FILE=x.yaml       run: the configuration; default examples/quickstart.yaml
#? CTEST_ARGS="..."  test, asan, tsan: further arguments for ctest, such as "-R base" or "-L unit"
#? ALL=1             check: clang-tidy over all files, not only those that differ from the main branch
#? SECONDS=n         fuzz: time for each target; default 60; 0: replay what is kept
#? JOBS=n            how many processes build and test at a time; default: the number of cores

.PHONY: deps
deps: ## Install what the build needs (Debian 12 and newer, Ubuntu 24.04 and newer)
	scripts/install-deps

.PHONY: build
build: ## Build the release program, build/release/prism
	$(call build,release,prism)

.PHONY: run
run: build ## Build, start, publish large files and orders through outbox and claim check, show each layer; then serve
	$(if $(filter real,$(BACKENDS)),scripts/install-deps --servers)
	FILES='$(FILES)' ONCE='$(ONCE)' FILE='$(FILE)' BACKENDS='$(BACKENDS)' scripts/run-demo

.PHONY: test
test: ## Build and run every test: unit, conformance, Python client, end to end, on real servers, faults, README, documents
	$(call build,dev)
	scripts/install-deps --servers
	ctest --preset dev -j $(JOBS) $(CTEST_ARGS)

.PHONY: check
check: ## Formatting, layers, forbidden words, clang-tidy on what changed (ALL=1: on everything)
	scripts/install-deps
	ALL='$(ALL)' scripts/check

.PHONY: bench
bench: ## Build the benchmarks in release and run them; prints ratios from one run
	$(call build,release)
	bench/run

.PHONY: asan
asan: ## All C++ tests under AddressSanitizer and UndefinedBehaviorSanitizer
	$(call build,asan)
	ctest --preset asan -j $(JOBS) -L unit $(CTEST_ARGS)

.PHONY: tsan
tsan: ## The core's tests, without gRPC, under ThreadSanitizer
	$(call build,tsan)
	ctest --preset tsan -j $(JOBS) -L unit $(CTEST_ARGS)

.PHONY: fuzz
fuzz: ## Fuzz what reads files, units, names and DDL for SECONDS each, under the sanitizers
	scripts/install-deps
	scripts/fuzz --seconds $(SECONDS)

.PHONY: reference
reference: ## Write docs/reference/configuration.md from the declarations of the options
	$(call build,dev,prism)
	build/dev/prism schema --format markdown > docs/reference/configuration.md

.PHONY: format
format: ## Format all C++ files in place
	scripts/install-deps
	git ls-files -co --exclude-standard '*.h' '*.cc' | xargs -r clang-format-$(CLANG) -i

.PHONY: clean
clean: ## Remove everything that was built, and the Python environment
	rm -rf build .venv
