# make demo, make test, make bench: each sets up what it needs, and reuses it the next time.
PYTHON ?= python3
VENV := .venv
LOWEST := .venv-lowest
RELEASE := .venv-release
BIN := $(VENV)/bin
DEMO := demo
# Expanded when the recipe runs, after the installation: the whole model where there is a GPU.
SIZE = $(shell $(BIN)/python -c "import torch; \
	print('' if torch.cuda.is_available() else '--preset small --set hidden=256 --steps 700')")

.PHONY: demo test slow lowest release bench figure clean

# Installed once; again when the dependencies change.
$(VENV)/installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --editable ".[cluster,codecs,tensorboard,video]" --group dev
	touch $@

demo: $(VENV)/installed
	$(BIN)/mmgen generate $(DEMO)/data --train 10000 --val 1000 --test 1000
	$(BIN)/mmtrain fit $(DEMO)/data --run $(DEMO)/run $(SIZE) --resume
	$(BIN)/mmtrain evaluate $(DEMO)/run $(DEMO)/data
	$(BIN)/mmtrain rollout $(DEMO)/run $(DEMO)/data -o $(DEMO)/rollout.gif
	$(BIN)/mmtrain report $(DEMO)/run -o $(DEMO)/report.html
	@echo "Now open $(DEMO)/report.html"

test: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/codespell
	$(BIN)/python -m pytest -m "not slow"

# What takes longer than ten seconds a test: CI runs it too.
slow: $(VENV)/installed
	$(BIN)/python -m pytest -m slow

# The fast tests with every dependency at the lower end of its range; PYTHON=python3.11 takes the
# oldest Python too. Needs 7 GB: the oldest torch comes with its own CUDA.
lowest:
	$(PYTHON) -m venv --clear $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet --upgrade "pip>=25.1"
	$(LOWEST)/bin/python .ci/lowest.py > $(LOWEST)/constraints.txt
	$(LOWEST)/bin/python -m pip install --quiet --constraint $(LOWEST)/constraints.txt \
		--editable ".[cluster,codecs,lightning,lpips,s3,tensorboard,video]" --group dev
	$(LOWEST)/bin/python -m pytest -m "not slow"

# dist/: the sdist, the wheel made from it, and what can be checked before anybody else has them.
release:
	rm -rf dist
	test -x $(RELEASE)/bin/python || $(PYTHON) -m venv $(RELEASE)
	$(RELEASE)/bin/python -m pip install --quiet --upgrade "pip>=25.1"
	$(RELEASE)/bin/python -m pip install --quiet --group release
	$(RELEASE)/bin/python -m build
	$(RELEASE)/bin/twine check --strict dist/*
	$(RELEASE)/bin/check-wheel-contents dist/*.whl
	$(RELEASE)/bin/cffconvert --validate

# Writes tests/benchmarks/results/table.md; minutes, on a machine with nothing else to do.
bench: $(VENV)/installed
	$(BIN)/python tests/benchmarks/bench_all.py

# The figure to cite, from two experiments: about two hours on two cores; killed, it goes on.
figure: $(VENV)/installed
	$(BIN)/mmtrain experiment experiments/fixed_sets.toml -o figure/fixed_sets
	$(BIN)/mmtrain experiment experiments/presets.toml -o figure/presets
	$(BIN)/python examples/skill.py figure
	@echo "Now open figure/skill.png"

clean:
	rm -rf $(VENV) $(LOWEST) $(RELEASE) $(DEMO) figure build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
