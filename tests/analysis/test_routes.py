"""Which route every parameter takes."""

import pytest
from numpyro.distributions import constraints

from probem.analysis.routes import make_plan
from probem.families import Categorical, Delta, Families
from probem.plan.plan import Plan
from probem.program.reading import read
from tests.programs.routes import ROUTES, X, in_short, plan_of, within


def routes(plan: Plan) -> dict[str, str]:
    closed = {name for link in plan.closed for name in link.source}
    found = dict.fromkeys(closed, "closed") | dict.fromkeys(plan.numeric, "numeric")
    found |= dict.fromkeys(plan.gradient, "gradient") | dict.fromkeys(plan.unused, "unused")
    modes = [site.name for site in plan.mean_field.sites if site.is_point]
    found |= dict.fromkeys(modes, "mode")
    assert len(found) == len(closed) + sum(map(len, (plan.numeric, plan.gradient, plan.unused, modes)))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", in_short("partly shared", "directions"))
def test_routes(name: str) -> None:
    program, data, expected = ROUTES[name]
    assert routes(plan_of(program, *data)) == expected


# Some are so wide that the random means of the proof lie inside.
NARROWER = [constraints.interval(-3.0, 3.0), constraints.greater_than(-3.0), constraints.ordered_vector]


@pytest.mark.slow
@pytest.mark.parametrize("constraint", NARROWER, ids=lambda constraint: type(constraint).__name__)
def test_less_room_than_the_argument_has_leaves_no_closed_form(constraint) -> None:
    """A weighted mean knows nothing of the constraint of its parameter."""
    assert routes(plan_of(within(constraint), X[:, 0])) == {"loc": "numeric"}


def test_a_plan_is_one_plan_for_equal_choices() -> None:
    program, data, _ = ROUTES["kmeans"]
    known = read(program, data)
    assert make_plan(known, Families(Delta())) is make_plan(known, Families(Delta()))
    assert make_plan(known, Families(Delta())) != make_plan(known, Families(Categorical()))
