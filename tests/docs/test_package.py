import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_file_that_is_no_module_is_part_of_the_package() -> None:
    package = ROOT / "src" / "isthmus"
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["isthmus"]
    shipped = {file for pattern in patterns for file in package.glob(pattern)}
    data = {file for file in package.rglob("*") if file.is_file() and file.suffix not in (".py", ".pyc")}
    assert data and data <= shipped, sorted(str(file.relative_to(package)) for file in data - shipped)
