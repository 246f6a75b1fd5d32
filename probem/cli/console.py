"""Where the commands print: in colour on a terminal, plain and unbroken in a pipe."""

import sys

from rich.console import Console

# Wide enough that no table breaks its lines when the output goes to a file.
_PIPE_WIDTH = 200


def console(stderr: bool = False) -> Console:
    """A console on the standard output, or on the standard error."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(file=stream, width=None if stream.isatty() else _PIPE_WIDTH, highlight=False)
