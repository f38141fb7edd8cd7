# make demo, make test, make bench: each sets up what it needs, and reuses it the next time.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := demo
# Expanded when the recipe runs, after the installation: the whole model where there is a GPU.
SIZE = $(shell $(BIN)/python -c "import torch; \
	print('' if torch.cuda.is_available() else '--preset small --set hidden=256 --steps 700')")

.PHONY: demo test slow bench clean

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

bench: $(VENV)/installed
	$(BIN)/python tests/benchmarks/bench_render.py
	$(BIN)/python tests/benchmarks/bench_generate.py
	$(BIN)/python tests/benchmarks/bench_stream.py
	$(BIN)/python tests/benchmarks/bench_step.py

clean:
	rm -rf $(VENV) $(DEMO) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
