"""probem: write a mixture as a NumPyro program, choose a variational family for its latents, get the algorithm."""

__version__ = "0.1.0"

import os as _os

import lazy_loader as _lazy_loader

from .runs import process as _process

if _process.is_starting():
    _process.end_quietly_on_interrupt()
if not _os.path.isdir(_os.path.join(__path__[0], "models")):
    # The links to models, experiments and configs, which stand beside this folder, are files in a ZIP download and
    # missing in a source distribution.
    __path__.append(_os.path.dirname(__path__[0]))

# The names are those of ``__init__.pyi``: NumPyro and JAX are not waited for before there is something to fit.
__getattr__, __dir__, __all__ = _lazy_loader.attach_stub(__name__, __file__)
