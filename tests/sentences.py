"""A refusal in one sentence of three parts."""

import pytest

from probem import InputError


def refused(message: str):
    """One sentence with its three parts, this among them."""
    return pytest.raises(InputError, match=rf"^got (?=.*{message})[^\n]*; expected [^\n]*; [^\n]*\.$")
