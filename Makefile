# make demo    synthetic photos -> LMDB files -> one epoch of every loader; a table and demo/throughput.png
# make train   examples/train.py on synthetic photos: fails unless it learns to tell their four classes apart
# make test    the test suite
# make fuzz    the readers on many more hostile files than the test suite has time for
# make lint    ruff
# make clean   removes .venv, caches and demo/
# Needs Python >= 3.10 with venv; everything else is installed into .venv, at the versions in constraints.txt.

PYTHON ?= python3
DEMO_IMAGES ?= 400
PYTEST_ARGS ?=

BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: demo train test fuzz lint clean
.DELETE_ON_ERROR:

demo: .venv/installed
	$(BIN)/python examples/demo.py --images $(DEMO_IMAGES)

# Ten epochs reach 96 to 99 %, whatever the seed; guessing one of four classes, 25 %. One thread of torch's, for such a
# small model: several spin while they wait for each other, and took four times as long where others use the processors.
train: demo/train/val.lmdb.index.npz
	OMP_NUM_THREADS=1 $(BIN)/python examples/train.py demo/train --epochs 10 --batch-size 16 --lr 0.1 --size 64 --start-size 48 \
		--width 16 --blocks 1 --checkpoint demo/train/checkpoint.pt --expect-accuracy 0.8

demo/train/val.lmdb.index.npz: | .venv/installed
	rm -rf demo/train
	$(BIN)/python examples/synthetic_photos.py --out demo/train/photos --train 160 --val 80
	for split in train val; do $(BIN)/python dump_imagenet.py --source demo/train/photos --target demo/train \
		--split $$split --format jpeg --shorter-side 160 --no-progress || exit 1; done

test: .venv/installed
	$(BIN)/python -m pytest $(PYTEST_ARGS)

fuzz: .venv/installed
	$(BIN)/python -m pytest tests/test_fuzz.py --hypothesis-profile=fuzz $(PYTEST_ARGS)

lint: .venv/lint-installed
	$(BIN)/ruff check .

# A new environment, never a changed one: what is in it depends on these files alone.
.venv/installed: setup.py constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 10) or sys.exit("Python >= 3.10 is needed: make PYTHON=...")'
	rm -rf .venv
	$(PYTHON) -m venv .venv
	$(PIP) install --quiet -c constraints.txt -e '.[test]'
	@touch $@

.venv/lint-installed: .venv/installed
	$(PIP) install --quiet -c constraints.txt ruff
	@touch $@

clean:
	rm -rf .venv demo build dist *.egg-info .pytest_cache .hypothesis .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
