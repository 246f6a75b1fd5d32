"""``python -m probem.experiments.benchmarks CONFIG [RESULTS.json]``."""

import json
import sys
from pathlib import Path

from probem.errors import InputError

from .benchmark import main

if len(sys.argv) not in (2, 3):
    sys.exit("usage: python -m probem.experiments.benchmarks CONFIG [RESULTS.json]")
try:
    measurements = main(sys.argv[1])
except InputError as error:
    print(error, file=sys.stderr)
    sys.exit(2)
if len(sys.argv) == 3:
    Path(sys.argv[2]).write_text(json.dumps(measurements, indent=2) + "\n")
