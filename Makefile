# The only set-up: every target makes .venv by itself, of the first Python here that edgekit runs on and that can make
# one. PYTHON=python3.12 picks another.
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11 python3.14 python3.10; do \
	$$python -c 'import ensurepip, sys; sys.exit(not (3, 10) <= sys.version_info < (3, 15))' 2>/dev/null && \
	echo $$python && break; done)
VENV := .venv
BIN := $(VENV)/bin
DEMO := runs/demo
ROAD := litert,digits,efficientnet-lite
KOTLIN := tests/shipping/android/node_modules
# More than there are cores: many tests wait, for boards, phones and browsers.
WORKERS ?= 3

.PHONY: demo test fast lint format bench scripts metadata-schema verify-jetson clean

demo: $(VENV)/.demo node_modules/.ready  ## real images to measured INT8 models, in minutes
	rm -rf $(DEMO)
	$(BIN)/edgekit train digits --model efficientnet_lite0 --image-size 64 --epochs 3 --lr 3e-3 --name demo
	$(BIN)/edgekit export demo --target jetson --target android
	$(BIN)/edgekit benchmark demo
	$(BIN)/edgekit report demo

test: lint .venv-tflite/.ready node_modules/.ready $(KOTLIN)/.ready  ## what CI runs
	$(BIN)/pytest -n $(WORKERS) --dist loadgroup --no-loadscope-reorder

fast: $(VENV)/.test node_modules/.ready  ## the tests that take seconds
	$(BIN)/pytest -n $(WORKERS) --dist loadgroup --no-loadscope-reorder -m "not slow"

lint: $(VENV)/.test
	$(BIN)/ruff format --check edgekit tests benchmarks
	$(BIN)/ruff check edgekit tests benchmarks
	$(BIN)/mypy

format: $(VENV)/.test
	$(BIN)/ruff format edgekit tests benchmarks
	$(BIN)/ruff check --fix edgekit tests benchmarks

bench: $(VENV)/.test  ## figures of this machine, written to benchmarks/results
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python -m benchmarks.harness

scripts: node_modules/.ready  ## modules of the kit for browsers and of the page, from their TypeScript (tsconfig.json)
	node_modules/.bin/tsc

metadata-schema:  ## code that reads and writes TFLite metadata, from its schema (apt install flatbuffers-compiler)
	flatc --python --gen-onefile -o build/metadata edgekit/targets/metadata.fbs
	{ echo "# Made by \`make metadata-schema\` from metadata.fbs: $$(flatc --version), --python --gen-onefile"; \
		cat build/metadata/metadata_generated.py; } >edgekit/targets/metadata_generated.py

verify-jetson: $(VENV)/.demo  ## HOST=user@orin [RUN=runs/mine] [MODE=15W]: what a person with a board would check
	@test -n "$(HOST)" || { echo "usage: make verify-jetson HOST=user@orin [RUN=runs/mine] [MODE=15W]"; exit 2; }
	$(BIN)/python -m benchmarks.verify_jetson "$(HOST)" --run "$(or $(RUN),verify)" --mode "$(MODE)"

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || \
		{ echo "no Python 3.10 to 3.14 with venv was found: apt install python3-venv, or make PYTHON=..."; exit 1; }
	$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 15))' || \
		{ echo "edgekit needs Python 3.10 to 3.14: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV) || \
		{ rm -rf $(VENV); echo "this Python has no venv: apt install python3-venv"; exit 1; }

$(VENV)/.demo: pyproject.toml | $(VENV)/bin/python
	$(BIN)/pip install --quiet --editable ".[$(ROAD)]"
	touch $@

# tensorrt-stubs needs gigabytes of TensorRT, of which no test needs any; without it its test says so.
$(VENV)/.test: pyproject.toml $(VENV)/.demo
	$(BIN)/pip install --quiet --editable ".[$(ROAD),tensorrt-rtx,dev]"
	$(BIN)/pip install --quiet --no-deps tensorrt-stubs==10.13.0.35.1  # alone: what it names is not on PyPI
	touch $@

# tflite-runtime needs numpy < 2 and Python < 3.12, so it lives apart; without it its tests say so.
.venv-tflite/.ready: | $(VENV)/bin/python
	$(BIN)/python -m venv .venv-tflite
	-.venv-tflite/bin/pip install --quiet tflite-runtime==2.14.0 "numpy<2"
	touch $@

# LiteRT.js, as package-lock.json pins it: `edgekit serve`, the tests of its page and a wheel need it. And TypeScript and
# tuf-js, which only `make scripts` and tests need.
node_modules/.ready: package.json package-lock.json
	@npm ci --ignore-scripts --no-audit --no-fund && touch $@ || \
		echo "LiteRT.js is not installed, which edgekit serve and its tests need: install npm, then run npm ci"

# Kotlin's compiler (90 MB), for the tests of kits for Android alone; they need Java, too.
$(KOTLIN)/.ready: tests/shipping/android/package.json tests/shipping/android/package-lock.json
	@npm ci --prefix tests/shipping/android --ignore-scripts --no-audit --no-fund && touch $@ || \
		echo "Kotlin's compiler is not installed: tests of kits for Android are left out"

clean:
	rm -rf $(VENV) .venv-tflite node_modules $(KOTLIN) runs .mypy_cache .ruff_cache .pytest_cache
