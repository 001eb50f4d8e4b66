# make demo   set up, train, report          make test    set up, check, test
# make bench  ratios of both sides in a run  make clean   remove the environment
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin

.PHONY: demo test bench clean

.venv/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,onnx,tensorboard,mtl,parquet]'
	touch $@

demo: .venv/.ready
	$(BIN)/isthmus demo --out runs/demo

test: .venv/.ready
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

bench: .venv/.ready
	$(BIN)/python benchmarks/run.py

clean:
	rm -rf .venv
