# make demo and make test are all a newcomer needs: each makes .venv and installs into it what is pinned, with hashes,
# in requirements/. Works with GNU make 3.81 and a POSIX sh.

# The Python that makes .venv; by default the newest of 3.11 or later on the PATH.
PYTHON ?=
# More for pytest or the bench: make test ARGS="-k rotation"
ARGS ?=
# How many processes run the tests: twice the cores of a small machine, as half of them wait for others.
WORKERS ?= 4
# make lock UPGRADE=--upgrade takes newer versions.
UPGRADE ?=

# Whatever else this shell does without: the tests start hundreds of processes, and each would compile all anew.
unexport PYTHONDONTWRITEBYTECODE

PY := .venv/bin/python
SETUP := PYTHON="$(PYTHON)" UPGRADE="$(UPGRADE)" sh .ci/setup
PACKAGING := setup.cfg pyproject.toml .ci/setup twisted/plugins/mesh_plugins.py

PYTEST := $(PY) -m pytest -q -n $(WORKERS) --dist worksteal --durations 20

.PHONY: help demo demo-federation test interop recipes lint check bench soak lock cover clean
.NOTPARALLEL:

help:
	@echo "make demo    watch two services prove to each other who they are"
	@echo "make demo-federation  watch two trust domains learn of each other, and part again"
	@echo "make test    run the tests, and say which took longest"
	@echo "make interop the others: outside programs on every case, real clocks, thousands of connections"
	@echo "make recipes those of docs/recipes/: frameworks and servers of others, which it installs into .venv"
	@echo "make check   before a commit: ruff, mypy, the floors, the quick tests of what was touched"
	@echo "make lint    the first half of that, for CI, which has run all tests"
	@echo "make bench   measure; with ARGS=report all beside others, into docs/BENCHMARKS.md (a quarter of an hour)"
	@echo "make soak    those that take minutes; with ARGS='-m \"\"' all there are, with many more examples"
	@echo "make cover   the tests with coverage of pki and twisted_mesh"
	@echo "make lock    resolve requirements/*.lock anew (UPGRADE=--upgrade for newer versions)"
	@echo "make clean   remove .venv, builds and caches"

demo: .venv/.core
	@$(PY) -m twisted_mesh.cli.demo $(ARGS)

demo-federation: .venv/.core
	@$(PY) -m twisted_mesh.cli.federation_demo $(ARGS)

test: .venv/.dev
	$(PYTEST) -m "not interop and not soak and not recipes" $(ARGS)

interop: .venv/.dev
	$(PYTEST) -m "interop and not recipes" $$(sh .ci/marked interop) $(ARGS)

recipes: .venv/.recipes
	$(PYTEST) -m recipes $$(sh .ci/marked recipes) $(ARGS)

lint: .venv/.dev
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	$(PY) -m mypy
	.venv/bin/lint-imports --no-logo

check: lint
	$(PY) -m pytest -q -n $(WORKERS) --dist worksteal -m "not slow and not interop and not recipes" $$(sh .ci/touched) $(ARGS)

bench: .venv/.dev
	@$(PY) -m tests.bench $(ARGS)

soak: .venv/.dev
	MESH_SOAK=1 $(PYTEST) -m soak $(if $(findstring -m "",$(ARGS)),,$$(sh .ci/marked soak)) $(ARGS)

cover: .venv/.dev
	$(PY) -m coverage erase
	$(PY) -m coverage run -m pytest -q -n $(WORKERS) --dist worksteal -m "not recipes" $(ARGS)
	$(PY) -m coverage combine -q
	$(PY) -m coverage report

lock:
	@$(SETUP) lock

clean:
	rm -rf .venv build dist *.egg-info .coverage .coverage.* htmlcov
	rm -rf .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find pki twisted_mesh twisted tests bin -name __pycache__ -prune -exec rm -rf {} +
	rm -f twisted/plugins/dropin.cache

# Each stamp is newer than what it was made from; a changed lock or setup.cfg installs again. A vanished
# interpreter leaves .venv/bin/python dangling, which make takes for missing.
.venv/bin/python:
	@$(SETUP) venv

.venv/.core: .venv/bin/python requirements/core.lock $(PACKAGING)
	@$(SETUP) core
	@touch $@

.venv/.dev: .venv/bin/python requirements/dev.lock $(PACKAGING)
	@$(SETUP) dev
	@touch .venv/.core $@

.venv/.recipes: .venv/.dev requirements/recipes.lock
	@$(SETUP) recipes
	@touch $@
