"""What a command owes to the shell that started it: exit codes, Ctrl-C at any time, and output that goes nowhere."""

import errno
import itertools
import os
import signal
import sys
from typing import Any

# 1: what was asked for came out badly. 2: it could not be asked for. 74: it could not be written (EX_IOERR of
# sysexits.h). 130 and 141: the numbers of SIGINT and SIGPIPE, plus 128.
FAILED, REFUSED, UNWRITTEN, INTERRUPTED, CUT_OFF = 1, 2, 74, 130, 141
NOTHING = "Interrupted: nothing was written."


class Output:
    """A stream that goes on in silence once it cannot be written, and remembers why.

    Whoever reads from a pipe may stop early, and a disk may be full: what is computed is not lost for that.
    """

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.error: OSError | None = None

    def write(self, text: str) -> int:
        if self.error is None:
            try:
                self.stream.write(text)
                self.stream.flush()
            except OSError as error:
                self.error = error
                # What is still in the buffer would fail once more when Python ends.
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self.stream.fileno())
                os.close(nowhere)
        return len(text)

    def flush(self) -> None:
        self.write("")

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    @property
    def exit_code(self) -> int:
        """0, or that of what went wrong on writing."""
        if self.error is None:
            return 0
        return CUT_OFF if self.error.errno == errno.EPIPE else UNWRITTEN


def is_starting() -> bool:
    """Whether Python was started to run the command line, and is importing what that needs."""
    name = os.path.basename(sys.argv[0]).removesuffix(".exe") if sys.argv else ""
    # The processes that a command starts have this name, too, and come by way of multiprocessing.
    as_script = name == "probem" and "multiprocessing" not in sys.modules
    return as_script or (name == "-m" and ("-m", "probem.cli") in itertools.pairwise(sys.orig_argv))


def end_quietly_on_interrupt() -> None:
    """Until ``interruptible``, Ctrl-C ends the process with one line: importing JAX takes a second or two."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)


def interruptible() -> None:
    """From here on, Ctrl-C is an exception again."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _end(*_: Any) -> None:
    os.write(2, f"{NOTHING}\n".encode())
    os._exit(INTERRUPTED)


def unwritten(error: OSError, what: str) -> str:
    """One sentence about something that could not be written."""
    named = f" ({error.filename})" if isinstance(error.filename, str) else ""
    reason = f"'{error.strerror or error}' on writing {what}{named}"
    return f"got {reason}; expected a place with room; make some, or choose another."
