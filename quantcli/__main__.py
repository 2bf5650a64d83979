"""``python -m quantcli``: the same as ``quantcli``."""

from quantcli.cli.main import main

if __name__ == "__main__":
    main()
