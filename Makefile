# What people run. `make help` lists it.
.DEFAULT_GOAL := help
.PHONY: help run demo test check install install-test format lock eval-pictogram embedded eval-embedded bench \
	bench-encoder bench-build bench-http bench-index bench-batch bench-finetune strategy-proof strategy-cifar finetune-proof finetune-methods gate-power container-proof clean

PY := .venv/bin/python
# Where the data sets lie; only the targets that train, evaluate or prove on them use it.
DATA ?= ../shared/data

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 18

run: install ## start the service on port 8000 and show it at work
	@$(PY) -m service.demo

demo: install ## the same on a free port, then exit
	@$(PY) -m service.demo --once

# Two processes with one computing thread each: on two cores a second thread only waits for the first.
test: check ## lint, types, import contracts and all tests
	@OMP_NUM_THREADS=1 $(PY) -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder

check: install-test ## lint, types, import contracts, Dockerfile
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy
	@.venv/bin/lint-imports
	@.venv/bin/hadolint --failure-threshold warning Dockerfile deploy/kubernetes/kuberay/Dockerfile

format: install-test ## put the code into shape
	@.venv/bin/ruff format .
	@.venv/bin/ruff check --fix .

install:
	@tools/install run

install-test:
	@tools/install test

lock: ## renew requirements.lock from pyproject.toml
	@tools/lock

eval-pictogram: install ## measure the model for drawings on drawings it was not trained on
	@$(PY) -m benchmarks.pictogram --data $(DATA)/pictograms

embedded: install-test ## train the embedded model everyday (hours on a CPU; continues where it stopped)
	@$(PY) -m pip install -q -c requirements.lock -e '.[pretrain]'
	@$(PY) -m training.pretraining --data $(DATA) --out models/everyday

eval-embedded: install ## measure everyday on photographs, drawings and words that were held out
	@$(PY) -m benchmarks.embedded --data $(DATA)

bench: bench-encoder bench-build bench-http ## encoder, index building and HTTP, side by side with the usual way

bench-encoder: install-test
	@$(PY) -m benchmarks.encoder --data $(DATA)

bench-build: install-test
	@$(PY) -m benchmarks.index_build

bench-http: install-test
	@$(PY) -m benchmarks.http --data $(DATA) $(if $(INFINITY),--infinity $(INFINITY))

bench-batch: install-test ## clipdex classify on folders, beside a plain open_clip loop (a quarter of an hour)
	@$(PY) -m benchmarks.batch --data $(DATA)

bench-index: install-test ## large indexes beside an exact scan
	@$(PY) -m benchmarks.index_search

bench-finetune: install-test ## latency of classification while a fine-tuning job runs
	@$(PY) -m benchmarks.finetune_latency

strategy-proof: install-test ## the planted-bug table of the training toolkit
	@$(PY) -m benchmarks.strategy_proof

strategy-cifar: install-test ## checklist, search and fit on CIFAR-10
	@$(PY) -m benchmarks.strategy_cifar --data $(DATA)

finetune-proof: install-test ## auto beside zero-shot, class means and logistic regression, 1 to 16 images a class
	@$(PY) -m benchmarks.finetune_baselines --data $(DATA) --page docs/finetuning.md

gate-power: install-test ## how often the gate passes what gains, and what does not
	@$(PY) -m benchmarks.gate_power

finetune-methods: install-test ## every fine-tuning method against zero-shot, 1 to 16 images a class
	@$(PY) -m benchmarks.finetune_proof --data $(DATA) --page docs/finetuning.md

container-proof: ## build the image and try it, with buildah and podman
	@tools/container-proof

clean: ## remove what was built and installed
	rm -rf .venv build dist data .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
