# The targets a person needs; `make help` lists them. Each sets up what it needs, once, into .venv.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.PHONY: help setup check repro tune verify recipe test torture bench clean ui image image-repro image-test kfp kfp-test kfp-docker-test s3 remote-test \
	team-test nodes-test browser-test lock

PYTHON ?= python3
PORT := 5000
VENV := .venv
READY := $(VENV)/.ready
KFP := .venv-kfp
KFP_READY := $(KFP)/.ready

# Containers: docker if its daemon answers, else podman.
ENGINE = $(shell docker info > /dev/null 2>&1 && echo docker || echo podman)
IMAGE := ssd
BASE := python:3.11-slim-bookworm
TORCH := cuda
# A PersistentVolumeClaim, where Kubeflow's step train keeps its checkpoints when the state is in a remote.
CHECKPOINTS :=
# The commit's whole name, whatever tags there are, and whether files differ from it.
REVISION = $$(git describe --always --abbrev=40 --exclude '*' --dirty || echo unknown)
# podman keeps a health check in docker's format alone.
BUILD = $(ENGINE) build $(if $(findstring podman,$(ENGINE)),--format docker) --tag $(IMAGE) --build-arg BASE=$(BASE) \
	--build-arg TORCH=$(TORCH) --build-arg REVISION=$(REVISION) $(BUILD_FLAGS)
# As the caller, over this folder. Docker's 64 MB of shared memory are too few for train.workers; podman that is not
# root gives a user's files to root of the container, unless it is told to keep the ids.
CALLER = $(shell id -u):$(shell id -g)
KEEP_ID = $(if $(findstring podman,$(ENGINE)),$(if $(filter-out 0,$(shell id -u)),--userns keep-id))
RUN = $(ENGINE) run --rm --user $(CALLER) $(KEEP_ID) --shm-size 2g --volume "$(CURDIR):/app" $(RUN_FLAGS)
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

help: ## list the targets
	@sed -nE 's/^([a-z0-9-]+):.*## (.*)/\1\t\2/p' $(MAKEFILE_LIST) | awk -F'\t' '{printf "make %-15s %s\n", $$1, $$2}'

setup: $(READY) ## install the locked environment into .venv
	@:

s3: $(VENV)/.s3 ## install what a DVC remote in S3 needs
	@:

check: $(READY) ## check that nothing is missing: weights, data, disk space, a GPU
	python -m stages.check

repro: $(READY) ## run the pipeline: data, training, evaluation, export; only what changed
	@# DVC names neither file nor key of a value that is no YAML, as the date 2001-99-99.
	python -m stages.check_params
	dvc repro

tune: $(READY) ## search better hyperparameters in the space of params.yaml; trains the best by several seeds
	python -m stages.tune

verify: $(READY) ## run the current commit from nothing in a clone, and compare all bytes with those here
	python -m stages.verify

recipe: $(READY) ## list the recipes; NAME=... writes the settings of one into params.yaml
	python -m stages.recipe $(NAME)

test: $(READY) $(KFP_READY) ## lint, check types, run all tests
	ruff check
	ruff format --check
	@# Beside the first tests: it uses one core. Tests wait a sixth of their time, so there is one process more than cores.
	mypy & types=$$!; \
	pytest --numprocesses $$(($$(nproc) + 1)) --dist loadfile --no-loadscope-reorder; \
	wait $$types

remote-test: $(VENV)/.store ## hand stages from checkout to checkout through an S3 server, killed within a push
	pytest --capture=no tests/on_demand/test_remote.py

team-test: $(VENV)/.store $(VENV)/server/.ready ## log to the servers of compose.yaml, with MLflow killed and back
	pytest --capture=no tests/on_demand/test_team.py

nodes-test: $(READY) ## train on two machines, network namespaces of this one, and lose one; needs root and iproute2
	pytest --capture=no tests/on_demand/test_nodes.py

browser-test: $(VENV)/.browser ## look at MLflow's pages and the demo with Debian's chromium
	pytest --capture=no tests/on_demand/test_browser.py

bench: $(READY) ## measure speed and memory against peers; writes benchmarks/results
	python -m benchmarks

torture: $(READY) ## kill the pipeline 150 times, damage 5000 files; NUM="--kills 20 --inputs 500" for fewer
	python -m tests.torture $(NUM)

clean: $(READY) ## list what takes disk space and nothing refers to; YES=1 deletes it
	python -m stages.clean $(if $(YES),--yes)

ui: $(READY) ## start MLflow on http://127.0.0.1:5000; PORT=... takes another port
	python -m stages.ui $(PORT)

image: ## build the container image; TORCH=cpu for one without CUDA; ENGINE=podman, BASE=...
	$(BUILD) .

image-repro: ## run the pipeline, each stage in a container of its own; RUN_FLAGS="--gpus all" for docker's GPUs
	@# Through DVC, which knows what changed. Only download has a network; a terminal hands Ctrl-C to the stage.
	@stages=$$($(RUN) --network none $(IMAGE) dvc stage list --name-only); \
	terminal=; if test -t 0; then terminal="--interactive --tty"; fi; \
	for stage in $$stages; do \
		if test $$stage = download; then network=; else network="--network none"; fi; \
		(set -x; $(RUN) $$terminal $$network $(IMAGE) dvc repro --single-item $$stage); \
	done

image-test: $(READY) ## build the image, run the pipeline in it and outside; on Debian's podman and mmdebstrap, or ENGINE, BASE
	@# What is not said here is made of Debian's packages.
	IMAGE_TEST=1 ENGINE=$(if $(filter command,$(origin ENGINE)),$(ENGINE)) BASE=$(if $(filter command,$(origin BASE)),$(BASE)) \
		pytest tests/container -p no:xdist --capture=no

kfp: $(READY) $(KFP_READY) ## write kubeflow/pipeline.yaml and pipeline-remote.yaml from dvc.yaml; CHECKPOINTS=..., see README.md
	python kubeflow/graph.py > $(KFP)/graph.json
	$(KFP)/bin/python kubeflow/pipeline.py --state workspace kubeflow/pipeline.yaml < $(KFP)/graph.json
	$(KFP)/bin/python kubeflow/pipeline.py --state remote $(if $(CHECKPOINTS),--checkpoints $(CHECKPOINTS)) \
		kubeflow/pipeline-remote.yaml < $(KFP)/graph.json

kfp-test: $(READY) $(KFP_READY) ## run the compiled pipelines here, all stages on a tiny data set; some minutes
	pytest tests/kubeflow/full_run.py

kfp-docker-test: $(READY) $(KFP_READY) ## run the compiled pipeline in containers of the image that `make image ENGINE=docker` built
	pytest tests/kubeflow/in_containers.py

COMPILE := uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	--no-emit-index-url --upgrade --quiet

lock: $(READY) ## renew requirements.txt, the lock, and the smaller ones beside it
	$(COMPILE) pyproject.toml --extra pipeline --extra cli --extra dev --output-file requirements.txt
	@# Each of the others agrees with it; that of the extra s3 names only what comes on top.
	$(COMPILE) pyproject.toml --extra pipeline --extra cli --extra s3 --constraints requirements.txt \
		$$(sed -nE 's/^([a-z0-9-]+)==.*/--no-emit-package \1/p' requirements.txt | sort -u) \
		--output-file requirements-s3.txt
	$(COMPILE) --group server --constraints requirements.txt --constraints requirements-s3.txt \
		--output-file server/requirements.txt
	$(COMPILE) --group store --output-file server/store.txt
	$(COMPILE) --group browser --constraints requirements.txt --output-file tests/on_demand/browser.txt
	$(COMPILE) kubeflow/requirements.in --output-file kubeflow/requirements.txt

# An interrupted set-up leaves no .ready, so that the next call repeats it.
$(READY): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11, 4))' \
		|| { echo "Python 3.11.4 or newer is needed, $(PYTHON) is $$($(PYTHON) -V 2>&1); try: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 2; }
	test -x $(VENV)/bin/pip || $(PYTHON) -m venv $(VENV)
	@# uv takes a minute for what takes pip three; it comes from the lock itself. Bytecode, or the imports of
	@# torch and MLflow would take each stage seconds longer wherever Python may not write it later.
	sed -n '/^uv==/,/[^\\]$$/p' requirements.txt > $(VENV)/uv.txt
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --require-hashes -r $(VENV)/uv.txt
	VIRTUAL_ENV=$(CURDIR)/$(VENV) $(VENV)/bin/uv pip install --quiet --compile-bytecode --require-hashes -r requirements.txt \
		|| { echo "uv failed, see above; trying pip, which takes some minutes" >&2; \
			$(VENV)/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt; }
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@# Read by every Python of this environment: plain `mlflow ui` sends nothing home and starts fast.
	@echo 'import os; os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true"); os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")' \
		> "$$($(VENV)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/no_telemetry.pth"
	touch $(READY)

# kfp pins other versions of what MLflow and DVC need, so it lives by itself.
$(KFP_READY): kubeflow/requirements.txt | $(READY)
	uv venv --quiet --allow-existing --python $(VENV)/bin/python $(KFP)
	VIRTUAL_ENV=$(CURDIR)/$(KFP) uv pip install --quiet --compile-bytecode --require-hashes -r kubeflow/requirements.txt
	touch $(KFP_READY)

$(VENV)/.s3: requirements-s3.txt $(READY)
	VIRTUAL_ENV=$(CURDIR)/$(VENV) uv pip install --quiet --require-hashes \
		-r requirements.txt -r requirements-s3.txt
	touch $@

$(VENV)/.store: server/store.txt $(VENV)/.s3
	VIRTUAL_ENV=$(CURDIR)/$(VENV) uv pip install --quiet --require-hashes -r server/store.txt
	touch $@

$(VENV)/.browser: tests/on_demand/browser.txt $(VENV)/.s3
	VIRTUAL_ENV=$(CURDIR)/$(VENV) uv pip install --quiet --require-hashes -r tests/on_demand/browser.txt
	touch $@

# The environment that the image of the MLflow server holds.
$(VENV)/server/.ready: server/requirements.txt $(READY)
	uv venv --quiet --clear --python $(VENV)/bin/python $(VENV)/server
	VIRTUAL_ENV=$(CURDIR)/$(VENV)/server uv pip install --quiet --compile-bytecode --require-hashes -r server/requirements.txt
	touch $@
