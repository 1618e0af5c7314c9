# make demo    synthetic photos -> LMDB files -> epochs of both loaders; a table and demo/throughput.png
# make train   examples/train.py on synthetic photos: fails unless it learns to tell their four classes apart
# make test    the test suite, in as many processes as there are processors
# make test-clusters   the tests with Ray, Slurm, networks, Lightning, Accelerate, and the loaders that benchmark.py
#              compares: some minutes
# make test-torchvision   the tests that need torchvision, timm, Lightning or Accelerate, in an environment of their own,
#              .venv-torchvision, for which it fetches some 5 GB
# make fuzz    the readers on many more hostile files than the test suite has time for
# make lint    ruff, and mypy in its strict mode; with Python >= 3.11, for numpy's types
# make docs    builds a site from docs/ and the docstrings, into site/; warnings are errors
# make hooks   has git run the same before each commit
# make coverage   the test suite, and which lines it did not run; it takes longer than make test
# make package    builds wheel and sdist, installs the wheel into an empty environment, and uses it there
# make clean   removes the environments, caches, builds, site/ and demo/
# Needs Python >= 3.10 with venv; everything else is installed into .venv, at the versions in constraints.txt.

PYTHON ?= python3
DEMO_IMAGES ?= 400
PYTEST_ARGS ?=

BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

# Each torchvision needs a torch of its own, which is not the one of constraints.txt.
BESIDE := .venv-torchvision
TORCHVISION_TESTS = $$(grep -rlE 'importorskip\("(torchvision|timm)' tests --include='test_*.py') \
	tests/system/test_documents.py tests/system/test_frameworks.py

.PHONY: demo train test test-clusters test-torchvision fuzz lint docs hooks coverage package clean
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

# One process per processor (pytest-xdist). Each begins with a share of its own and takes from another's when that is
# done, so what the tests of a file share is mostly made once. `make test PYTEST_ARGS="-n 0"` runs all tests in one
# process, for a debugger.
# Kernels are compiled first: a test that starts that would leave a thread behind, and each process would do it.
test: .venv/installed
	$(BIN)/python -m dataflows compile
	$(BIN)/python -m pytest -n auto --dist worksteal -m "not clusters" $(PYTEST_ARGS)

test-clusters: .venv/installed
	$(BIN)/python -m pytest -n auto --dist worksteal -m clusters $(PYTEST_ARGS)

test-torchvision: $(BESIDE)/installed
	$(BESIDE)/bin/python -m pytest -n auto $(TORCHVISION_TESTS) $(PYTEST_ARGS)

fuzz: .venv/installed
	$(BIN)/python -m pytest tests/system/test_fuzz.py --hypothesis-profile=fuzz $(PYTEST_ARGS)

lint: .venv/lint-installed
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: .venv/docs-installed
	$(BIN)/mkdocs build --strict
	@echo "site/index.html"

hooks: .venv/lint-installed
	$(BIN)/pre-commit install

# The test that is left out limits the size of files, and coverage has to write one. Where tests kill processes, combine
# finds files that were cut off, and says so.
coverage: .venv/installed
	$(PIP) install --quiet -c constraints.txt coverage
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest $(PYTEST_ARGS) \
		--deselect tests/system/test_dump.py::test_a_disk_that_takes_no_more_ends_the_process_with_1; status=$$?; \
		$(BIN)/coverage combine --quiet; $(BIN)/coverage report && exit $$status

# The wheel is built from the sdist. What runs in the empty environment finds nothing of this folder, and may not warn.
package: .venv/installed
	rm -rf dist
	$(PIP) install --quiet -c constraints.txt build
	$(BIN)/python -m build
	$(PYTHON) -m venv dist/empty
	dist/empty/bin/python -m pip --disable-pip-version-check install --quiet --no-compile -c constraints.txt dist/*.whl
	dist/empty/bin/python -m pip --disable-pip-version-check check
	dist/empty/bin/python examples/synthetic_photos.py --out dist/photos --train 12 --val 4
	cd dist && empty/bin/dump-imagenet --help >/dev/null
	cd dist && for split in train val; do PYTHONWARNINGS=error empty/bin/dump-imagenet --source photos --target . \
		--split $$split --format jpeg --no-progress || exit 1; done
	cd dist && PYTHONWARNINGS=error empty/bin/python -m dataflows verify train.lmdb
	cd dist && PYTHONWARNINGS=error empty/bin/python -c "$$EPOCH"
	rm -r dist/empty dist/photos dist/*.lmdb*

define EPOCH
from dataflows import RandomResizedCrop
from uint_lmdb_loader import LMDBLoader
loader = LMDBLoader("train.lmdb", 5, transform=RandomResizedCrop(64), num_workers=2)
shapes = [tuple(images.shape) for images, labels in loader]
assert shapes == [(5, 3, 64, 64), (5, 3, 64, 64), (2, 3, 64, 64)], shapes
endef
export EPOCH

# A new environment, never a changed one: what is in it depends on these files alone.
.venv/installed: setup.py constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 10) or sys.exit("Python >= 3.10 is needed: make PYTHON=...")'
	rm -rf .venv
	$(PYTHON) -m venv .venv
	$(PIP) install --quiet -c constraints.txt -e '.[test]'
	@touch $@

$(BESIDE)/installed: setup.py constraints.txt constraints-torchvision.txt
	rm -rf $(BESIDE)
	$(PYTHON) -m venv $(BESIDE)
	sed '/^torch==/d' constraints.txt > $(BESIDE)/constraints.txt
	$(BESIDE)/bin/python -m pip --disable-pip-version-check install --quiet -c $(BESIDE)/constraints.txt \
		-r constraints-torchvision.txt -e '.[test]'
	@touch $@

.venv/lint-installed: .venv/installed
	$(PIP) install --quiet -c constraints.txt ruff mypy types-tqdm pre-commit
	@touch $@

.venv/docs-installed: .venv/installed
	$(PIP) install --quiet -c constraints.txt -e '.[docs]'
	@touch $@

clean:
	rm -rf .venv $(BESIDE) demo build dist site *.egg-info .pytest_cache .hypothesis .ruff_cache .mypy_cache .coverage*
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
