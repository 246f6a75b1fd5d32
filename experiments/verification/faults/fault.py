"""What a planted fault is."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Fault:
    """One line that is wrong: ``before`` in ``file`` becomes ``after``.

    ``claim`` is one of ``probem verify`` and the data set on which it fails, or None; ``test`` the pytest node that
    fails.
    """

    name: str
    file: str
    before: str
    after: str
    test: str
    claim: tuple[str, str] | None = None
    unclaimed: str = ""
