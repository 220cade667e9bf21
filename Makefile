# Everything sets itself up: `make demo` and `make test` work on a fresh clone with Python >= 3.11 and nothing else.

PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
READY = $(VENV)/.ready
INTEROP = $(VENV)/.interop
DEMO = runs/demo
FACES = synthetic:600x12
# 200 other people: identities 1,000,000 and on are in no training set.
STRANGERS = synthetic:200x4+1000000

# Identities of the data set of characters (5k, 25k or 70k), and its folder.
SIZE ?= 5k
GLYPHS ?= glyphs

.PHONY: demo test lint check attack gpu glyphs standin clean

demo: $(READY)  ## plan for this machine, train on synthetic faces, verify on identities never seen (about 2 minutes)
	rm -rf $(DEMO)
	$(BIN)/attfc-plan --head attfc --gpu auto --data $(FACES) --val $(STRANGERS) --backbone tiny --image-size 64 --epochs 4 \
		--output $(DEMO)/best.json
	$(BIN)/attfc-train --profile $(DEMO)/best.json --output $(DEMO)/run
	$(BIN)/attfc-train evaluate $(DEMO)/run --at-least 0.9

test: $(READY) $(INTEROP) lint check  ## everything CI runs
	$(BIN)/python -m pytest -n 2 --dist loadfile -q

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

check: $(READY)
	$(BIN)/mypy

attack: $(READY)  ## damaged inputs, kills, power cuts, full disks and rivals, with what counts as right (20 minutes)
	$(BIN)/python -m benchmarks.attack

gpu: $(READY)  ## what only a CUDA device can show: its tests, the loss's rates, predictions beside measurements (under 30 minutes)
	$(BIN)/python -m pytest -q tests/gpu
	$(BIN)/python -m benchmarks.capacity
	$(BIN)/python -m benchmarks.memory_matrix --minutes 9
	$(BIN)/python -m benchmarks.predicted_and_measured

glyphs: $(READY)  ## fonts where they may be installed, and the characters of all fonts as a data set: make glyphs SIZE=25k
	$(BIN)/python -m benchmarks.glyphs.packages
	$(BIN)/python -m benchmarks.glyphs --size $(SIZE) --out $(GLYPHS)

standin:  ## the CUDA paths without a GPU: tests on a stand-in device, in environments of their own (11 GB)
	$(PYTHON) tests/standin/run.py

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("attfc needs Python >= 3.11: make PYTHON=python3.11") if sys.version_info < (3, 11) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,log]'
	touch $(READY)

# Other people's packages, which tests try our models in: large, and not for every platform; without them those tests skip.
$(INTEROP): $(READY)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[interop]' \
		|| echo "insightface and lightning could not be installed: their tests will be skipped"
	touch $(INTEROP)

clean:
	rm -rf $(VENV) .standin runs dist build *.egg-info
