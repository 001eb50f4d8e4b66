"""The command line: one thin function per command; nothing heavy is imported before it is needed."""

from __future__ import annotations

from isthmus.cli import (  # noqa: F401  (their commands join the app)
    analyse,
    audit,
    benchmark,
    data,
    doctor,
    estimates,
    evaluate,
    recipes,
    train,
)
from isthmus.cli.app import app
from isthmus.cli.console import errors
from isthmus.errors import IsthmusError


def main() -> None:
    """Run the command line; a user's mistake is one message and exit status 2."""
    try:
        app()
    except IsthmusError as error:
        errors.print(str(error), style="red", highlight=False, soft_wrap=True, markup=False)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
