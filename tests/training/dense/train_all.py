"""Run by test_dense_processes.py as two processes of one group: trains the recipes of a folder one by one."""

import sys
from pathlib import Path

from isthmus.training.engine import train
from isthmus.training.recipe import load

if __name__ == "__main__":
    for file in sorted(Path(sys.argv[1]).glob("*.yaml")):
        train(load(file), file.with_suffix(""))
