"""`python -m pilot_identity.cli` is `kubectl-pilot`."""

import gc


def main() -> None:
    """Run the program and exit with its code.

    What is imported stays to the end: looking for garbage meanwhile would be a sixth of the start.
    """
    gc.disable()
    from pilot_identity.cli.main import main as run  # noqa: PLC0415 - after the line above

    gc.freeze()
    gc.enable()
    run()


if __name__ == "__main__":
    main()
