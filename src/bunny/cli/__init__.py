"""The `bunny` command, a thin shell over `bunny.pipeline`: words come in, tables, JSON and exit codes go out.

Nothing heavy is imported before a command needs it, so `bunny --help` answers within half a second.
"""

from bunny.cli.app import app, main

__all__ = ["app", "main"]
