"""The script ``cim``: the command line, imported where Ctrl-C is already understood."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line."""
    try:
        from cim_server.cli import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
