"""The command line: ``probem verify``, ``run``, ``fit``, ``explain`` and ``check``."""

import sys

from probem.runs import process

# What the extra brings, by the name it is imported under.
_EXTRA = {"click", "jinja2", "latex2mathml", "matplotlib", "polars", "pydantic", "rich", "ruamel", "sklearn"}


def main() -> None:
    """Run the command that the arguments name; the console entry point."""
    output, errors = process.Output(sys.stdout), process.Output(sys.stderr)
    sys.stdout, sys.stderr = output, errors
    try:
        process.interruptible()
        try:
            from .commands import group

            group(prog_name="probem")
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else process.FAILED
        except ModuleNotFoundError as error:
            missing = (error.name or "").split(".")[0]
            if missing not in _EXTRA:
                raise
            sentence = f'got no package {missing}; expected what the command line needs; pip install "probem[cli]".'
            errors.write(sentence + "\n")
            code = process.REFUSED
    except KeyboardInterrupt:
        errors.write(f"{process.NOTHING}\n")
        code = process.INTERRUPTED
    output.flush()
    if output.exit_code == process.UNWRITTEN and output.error is not None:
        errors.write(f"Error: {process.unwritten(output.error, 'to the standard output')}\n")
    sys.exit(output.exit_code or code)
