# A thin face over CMake and scripts/: every target is one sentence here and one script there.
# A person on a fresh machine needs git, make and a right to install packages; nothing else.
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := build
PREFIX ?= /usr/local
STATES ?= 1000000
KILLS ?= 200
RUNS ?= 10000
export TEXT DEMO_STEPS SMOKE PLUMB_TEST_DATA

.PHONY: build help demo test crash-test kill-test fuzz perf cuda format check tidy install clean check-fresh

build:  ## Build every program, test and benchmark into build/release (the default target).
	@scripts/build.sh

help:  ## Print this list.
	@echo "Plumb: train and run language models with every byte planned. Targets:"
	@sed -n 's/^\([a-z-]*\):  ## /\1	/p' Makefile | awk -F'\t' '{printf "  make %-12s %s\n", $$1, $$2}'
	@echo "Settings: demo TEXT=file.txt DEMO_STEPS=n; perf SMOKE=1; install PREFIX=/usr/local;"
	@echo "crash-test STATES=$(STATES); kill-test KILLS=$(KILLS); fuzz RUNS=$(RUNS)."

demo:  ## Install, build, train a small GPT for two minutes and let it write.
	@scripts/demo.sh

test:  ## Build and run every test, from nothing.
	@scripts/test.sh

crash-test:  ## Crash saves on a simulated disk in STATES different ways, and look at what is left.
	@scripts/build.sh release crash_campaign
	@build/release/tests/crash_campaign $(STATES)

kill-test:  ## Kill a training KILLS times at random moments; resume, and compare digests.
	@scripts/kill_campaign.sh $(KILLS)

fuzz:  ## Give each parser of outside bytes RUNS mutated inputs under sanitizers (clang).
	@scripts/fuzz.sh $(RUNS)

perf:  ## Print each kernel beside the limit of this machine, measured in the same run.
	@scripts/perf.sh

cuda:  ## Build everything for NVIDIA GPUs into build/cuda (needs the CUDA toolkit, 12.4 or newer).
	@scripts/build.sh cuda

format:  ## Rewrite every source file in the project's format (clang-format).
	@scripts/format.sh

check:  ## Check include rules, names, file heads, format and words; builds nothing.
	@scripts/check.sh

tidy:  ## Run clang-tidy over the rooms that it covers.
	@scripts/tidy.sh

install:  ## Build, then install the programs into PREFIX/bin.
	@PREFIX="$(PREFIX)" scripts/install.sh

check-fresh:  ## Prove in a bare Debian 12 chroot that the package list is complete (root only).
	@scripts/check_fresh.sh

clean:  ## Remove build/ (what you trained stays).
	rm -rf build
