"""The bound of a fit, half-step by half-step."""

import dataclasses

import numpy as np
from jaxtyping import Float, Int, Shaped

from probem.e_step.bound import Bound
from probem.solver.state import Record


@dataclasses.dataclass(frozen=True, eq=False)
class History:
    """F half-step by half-step: entry 2 s is the E half-step of iteration s, entry 2 s + 1 its M half-step.

    Where parameters climb a gradient over the data, each candidate is judged with a q of its own: what the M half-step
    adds is then the rise of F with q projected anew, at least that at the q of the E half-step.

    Attributes
    ----------
    step : the number of the iteration, from 0
    half : ``"E"`` or ``"M"``
    elbo : F, nats, total over the rows
    objective : F with the entropy weighted as the family maximises it (``Tempered``), else F; nats, total over the rows
    expected_log_joint, entropy, log_prior : the terms of F, nats, totals over the rows
    gap : sum_n KL(q_n || posterior), nats, total over the rows; NaN where it was not computed
    moved : the number of rows whose point mass moved in an E half-step, -1 elsewhere
    accelerated : 1 in iterations that began at parameters to which an acceleration had moved, -1 if these were given
        up because F was lower there (what follows begins where the iteration before ended), 0 in all others
    """

    step: Int[np.ndarray, " T"]
    half: Shaped[np.ndarray, " T"]
    elbo: Float[np.ndarray, " T"]
    objective: Float[np.ndarray, " T"]
    expected_log_joint: Float[np.ndarray, " T"]
    entropy: Float[np.ndarray, " T"]
    log_prior: Float[np.ndarray, " T"]
    gap: Float[np.ndarray, " T"]
    moved: Int[np.ndarray, " T"]
    accelerated: Int[np.ndarray, " T"]

    @classmethod
    def of(cls, records: list[Record], entropy_weight: float) -> "History":
        """From the records of successive calls, each with a leading axis of steps."""
        every = records or [Record(np.zeros((0, 2, 5)), np.zeros(0, np.int32))]
        moved = np.concatenate([np.asarray(record.moved) for record in every])
        terms = Bound(*np.concatenate([np.asarray(record.bounds) for record in every]).reshape(-1, 5).T)
        count = len(moved)
        outcomes = [np.zeros(len(each.moved), int) if each.accelerated is None else each.accelerated for each in every]
        return cls(
            step=np.repeat(np.arange(count), 2),
            half=np.tile(np.array(["E", "M"]), count),
            objective=terms.elbo + (entropy_weight - 1.0) * terms.entropy,
            moved=np.stack([moved, np.full(count, -1)], 1).reshape(-1),
            accelerated=np.repeat(np.concatenate(outcomes), 2),
            **terms._asdict(),
        )

    def followed_by(self, later: "History") -> "History":
        """Both histories, the steps of the second counted on."""
        names = [field.name for field in dataclasses.fields(self)]
        joined = {name: np.concatenate([getattr(self, name), getattr(later, name)]) for name in names}
        return History(**joined | {"step": np.repeat(np.arange(len(joined["step"]) // 2), 2)})

    def __len__(self) -> int:
        return len(self.step)
