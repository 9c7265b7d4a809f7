# make run: train on the embedded sample and predict. make real: the same with a pretrained model, which is fetched once,
# on the real judgements in DATA. make page: the sample's page, after ten short trainings. make test: install what the
# tests need, then run the tests. make test-slow: the tests that kill and restart programs, or run several processes.
# Both use two processes of one thread each, which takes half the time. make audit, make sbom: SECURITY.md.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin

.PHONY: run real page test test-slow test-kernel fuzz mutants coverage chaos docs check lint size lock audit sbom clean

run: .venv/.run
	$(BIN)/python train.py fold=0
	$(BIN)/python predict.py

# The page of the embedded sample from nothing: two learning rates, five folds of one epoch each.
page: .venv/.run
	$(BIN)/python train.py -m fold=0,1,2,3,4 name=rate-0.001 fit.learning_rate=0.001 trainer.max_epochs=1
	$(BIN)/python train.py -m fold=0,1,2,3,4 name=rate-0.004 fit.learning_rate=0.004 trainer.max_epochs=1
	$(BIN)/python -m nexttoken page output/lmsys

DATA ?= ../shared/data/arena-mini

real: .venv/.run
	$(BIN)/python -m nexttoken weights smollm2
	$(BIN)/python train.py fold=0 experiment=arena_smollm2 input_dir=$(DATA)
	$(BIN)/python predict.py run=output/lmsys/arena_smollm2 input_dir=$(DATA)

test: .venv/.test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" -n 2 --dist worksteal

test-slow: .venv/.test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow -n 2 --dist worksteal

# Commands killed at 500 random moments, as many failing writes, and every file of a run altered: half an hour. The seed
# is printed; SEED=<number> repeats its moments, KILLS=<number> changes their number.
KILLS ?= 500
SEED ?= $(shell date +%s)

chaos: .venv/.test
	@echo "seed $(SEED)"
	OMP_NUM_THREADS=1 NEXTTOKEN_CHAOS_SEED=$(SEED) NEXTTOKEN_CHAOS_KILLS=$(KILLS) $(BIN)/python -m pytest tests/chaos -rP \
		-n 2 --dist worksteal

# Every command of the documentation, run in a checkout of its page; the summary names what was skipped and why.
docs: .venv/.test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/documented/each_command.py -rs -n 2 --dist worksteal

# Kernels of every kind, rehearsed with two sets of versions: about 12 GB, installed once into the user's cache.
test-kernel: .venv/.test
	NEXTTOKEN_REHEARSED_VERSIONS="oldest newest" OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow tests/commands/test_kernel_kinds.py \
		tests/commands/test_kaggle_page.py

# Bad input, found by coverage: SECONDS for each kind. Findings and corpora lie in output/fuzz.
SECONDS ?= 60

fuzz: .venv/.test
	$(BIN)/python -m pip install --quiet -e ".[fuzz]"
	PYTHONPATH=tests $(BIN)/python -m fuzz seconds=$(SECONDS)

# Faults put into the core (label reading, folds, metrics, submissions): the tests have to notice 80 % of them.
mutants: .venv/.test
	$(BIN)/python -m pip install --quiet -e ".[coverage]"
	OMP_NUM_THREADS=1 $(BIN)/python -m mutmut run
	$(BIN)/python -m mutmut export-cicd-stats
	cat mutants/mutmut-cicd-stats.json

# Lines and branches that the tests reach, those of started commands included.
coverage: .venv/.test
	$(BIN)/python -m pip install --quiet -e ".[coverage]"
	OMP_NUM_THREADS=1 $(BIN)/python -m coverage run -m pytest -n 2 --dist worksteal || true
	$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage report --skip-covered --sort=miss

check: lint test

lint: .venv/.test
	$(BIN)/ruff format --check src tests benchmarks samples train.py predict.py
	$(BIN)/ruff check src tests benchmarks samples train.py predict.py
	$(BIN)/mypy

# Lines of Python, against the marks of CONTRIBUTING.md.
size:
	@printf 'package      %6d of 20000\n' $$(find src -name '*.py' | xargs cat | wc -l)
	@printf 'all but tests %5d of 25000\n' $$(find src samples benchmarks train.py predict.py -name '*.py' | xargs cat | wc -l)
	@printf 'tests        %6d, at least the package\n' $$(find tests -name '*.py' | xargs cat | wc -l)
	@printf 'median file  %6d, 80 to 110\n' $$(find src -name '*.py' ! -name __init__.py -exec sh -c 'wc -l < "$$1"' _ {} \; | sort -n | awk '{a[NR]=$$1} END {print a[int((NR+1)/2)]}')

.venv/bin/python:
	$(PYTHON) -m venv .venv

# Every package is checked against its hash in a lock. A few have no wheel and are built here, by the locked setuptools.
INSTALL := $(BIN)/python -m pip install --quiet --require-hashes --no-deps --no-build-isolation --use-pep517
# The build of torch: cpu where pip's registry offers it, else cuda, which is PyPI's. Any other way: make run TORCH=cpu
TORCH ?= $(shell $(BIN)/python -m pip index versions torch 2> /dev/null | grep -q "$$(cut -d ' ' -f 1 requirements-cpu.lock | \
	cut -d = -f 3)" && echo cpu || echo cuda)

.venv/.run: requirements.lock requirements-cpu.lock requirements-cuda.lock pyproject.toml | .venv/bin/python
	sed -n '/^setuptools==/,/[^\\]$$/p' requirements.lock > .venv/setuptools.lock
	$(INSTALL) -r .venv/setuptools.lock
	$(INSTALL) -r requirements.lock -r requirements-$(TORCH).lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	touch $@

.venv/.test: requirements-test.lock .venv/.run
	$(INSTALL) -r requirements-test.lock
	touch $@

# Tools that look at .venv from outside. audit: known flaws of the locked packages; a line says where they cannot be looked
# up. sbom: sbom.json, the packages of .venv in the CycloneDX format.
.venv/.audit: requirements-audit.lock | .venv/bin/python
	$(PYTHON) -m venv .venv/audit
	.venv/audit/bin/python -m pip install --quiet --require-hashes --no-deps -r requirements-audit.lock
	touch $@

audit: .venv/.audit
	.venv/audit/bin/python .ci/audit

sbom: .venv/.run .venv/.audit
	.venv/audit/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible --output-format JSON \
		--output-file sbom.json $(BIN)/python

# Writes the locks from pyproject.toml.
lock:
	sh .ci/lock

clean:
	rm -rf .venv .pytest_cache .ruff_cache .mypy_cache
