"""``python -m ztom``: the command line."""

from ztom.cli.main import main

if __name__ == "__main__":
    main()
