"""What probem costs beside other libraries, in one run: ``python -m probem.experiments.benchmarks CONFIG``."""
