"""``python -m probem.cli``."""

from probem.cli import main

if __name__ == "__main__":
    main()
