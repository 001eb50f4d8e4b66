import sys
from pathlib import Path

# Runs are killed, resumed, and compared over processes by the same helpers as those of dense predictions.
for folder in (Path(__file__).parent, Path(__file__).parents[1] / "dense", Path(__file__).parents[2] / "data"):
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
