"""`python -m pilot_identity.cli` is `kubectl-pilot`."""

from pilot_identity.cli.main import main

if __name__ == "__main__":
    main()
