"""``python -m millrace`` is the ``millrace`` command."""

from __future__ import annotations

from millrace.cli.main import main

if __name__ == "__main__":
    main()
