# Every line is a command that a person could type. `make help` lists the targets.
PYTHON ?= python3
JOBS ?= 2
BIN := .venv/bin
STAMP := .venv/.setup-done

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-ps demo-cross test test-slow check bench clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(STAMP) ## make .venv with the tested versions

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -c constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $(STAMP)

test: $(STAMP) ## run the quick tests (a few minutes on two cores)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadscope -q

test-slow: $(STAMP) ## run the slow tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadscope -q -m 'slow and not gpu'

check: $(STAMP) ## style, types, imports between modules, documents
	scripts/check

bench: $(STAMP) ## measure speed; results belong in docs/log.md
	for script in scripts/bench_*.py; do $(BIN)/python $$script || exit 1; done

demo: demo-ps demo-cross ## demo data, fit, predict, export, score and report of every track, all in demo/

demo-ps: $(STAMP) ## the same for ps alone
	rm -rf demo/data demo/store demo/run demo/*.html demo/ps.jsonl demo/predictions.csv demo/submission.zip && mkdir -p demo
	$(BIN)/mersuite fake track=ps out=demo/data num_subjects=6 snr=1.0 seed=0
	$(BIN)/mersuite check track=ps data.root=demo/data
	$(BIN)/mersuite prepare track=ps data.root=demo/data store.path=demo/store
	$(BIN)/mersuite fit track=ps data.root=demo/data store.path=demo/store run.dir=demo/run cv.by=subject cv.folds=3 trainer.max_epochs=5
	$(BIN)/mersuite predict ckpt=demo/run data.root=demo/data store.path=demo/store split=test out=demo/ps.jsonl
	$(BIN)/mersuite export track=ps pred=demo/ps.jsonl out=demo/predictions.csv
	$(BIN)/mersuite export track=ps ckpt=demo/run kind=code out=demo/submission.zip
	$(BIN)/mersuite score track=ps pred=demo/predictions.csv target=demo/data/targets.csv
	$(BIN)/mersuite report run=demo/run out=demo/report.html
	@echo
	@echo "submission: demo/submission.zip (code) and demo/predictions.csv (table)"
	@echo "report:     demo/report.html"

demo-cross: $(STAMP) ## the same for cross alone
	rm -rf demo/cross && mkdir -p demo/cross
	$(BIN)/mersuite fake track=cross out=demo/cross/data num_clips=60 seed=0
	$(BIN)/mersuite check track=cross data.root=demo/cross/data
	$(BIN)/mersuite prepare track=cross data.root=demo/cross/data store.path=demo/cross/store
	$(BIN)/mersuite fit track=cross data.root=demo/cross/data store.path=demo/cross/store run.dir=demo/cross/run cv.folds=3 trainer.max_epochs=5
	$(BIN)/mersuite predict ckpt=demo/cross/run data.root=demo/cross/data store.path=demo/cross/store split=test out=demo/cross/cross.jsonl
	$(BIN)/mersuite export track=cross pred=demo/cross/cross.jsonl out=demo/cross/answer.zip
	$(BIN)/mersuite score track=cross pred=demo/cross/answer.zip target=demo/cross/data/track1_test.csv
	$(BIN)/mersuite report run=demo/cross/run out=demo/cross/report.html
	@echo
	@echo "submission: demo/cross/answer.zip"
	@echo "report:     demo/cross/report.html"

clean: ## remove demo output and caches, keep .venv
	rm -rf demo build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
