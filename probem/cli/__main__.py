"""``python -m probem.cli``."""

from probem.cli import main

main()
