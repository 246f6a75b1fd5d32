"""The command line: ``probem verify``, ``probem fit`` and ``probem explain``."""

import sys

# What the extra brings, by the name it is imported under.
_EXTRA = {"click", "jinja2", "latex2mathml", "matplotlib", "polars", "pydantic", "rich", "sklearn", "yaml"}


def main() -> None:
    """Run the command that the arguments name; the console entry point."""
    try:
        from .commands import group

        group(prog_name="probem")
    except ModuleNotFoundError as error:
        missing = (error.name or "").split(".")[0]
        if missing not in _EXTRA:
            raise
        sentence = f'got no package {missing}; expected what the command line needs; pip install "probem[cli]".'
        sys.stderr.write(sentence + "\n")
        sys.exit(2)
