"""The families of all sites of a program, once every choice is checked against its site."""

from collections.abc import Mapping
from typing import Any

from probem.errors import InputError, nearest
from probem.families.assignments import AssignmentFamily, Delta
from probem.families.contract import check_contract
from probem.families.corners import EM, Corner, Families
from probem.families.parameters import ParameterFamily
from probem.jit.compilation import check_hashable
from probem.program.program import Program


def choose_families(program: Program, families: Any) -> Families:
    """The families of all sites, once every choice is checked against its site.

    Raises
    ------
    InputError
        For a family on an unknown site (with the nearest name) or of the wrong kind for its site.
    """
    corner = families if isinstance(families, Corner) else EM
    if not (isinstance(corner.assignments, AssignmentFamily) and isinstance(corner.parameters, ParameterFamily)):
        raise InputError(
            f"the corner {corner.name} of {corner.assignments!r} and {corner.parameters!r}",
            "a family for the assignments and one for the parameters",
            "write Corner(name, Categorical(), Delta()), or use one of those named",
        )
    if families is not None and not isinstance(families, Corner | Mapping):
        raise InputError(
            f"families of type {type(families).__name__}",
            "a mapping from site to family, or a named corner",
            "write families={'site': probem.Delta()} or families=probem.HARD_EM",
        )
    chosen = dict(families) if isinstance(families, Mapping) else dict(corner.others)
    assignments = [site.name for site in program.assignments]
    with_prior = [site.name for site in program.globals if site.has_prior]
    without = [site.name for site in program.globals if not site.has_prior]
    if corner.parameters.needs_conjugate_prior and not with_prior:
        raise InputError(
            f"{corner.name} for a program in which no site outside the data plate has a prior",
            "numpyro.sample sites there",
            "put priors on its parameters, or use probem.EM or probem.HARD_EM",
        )
    for name, family in chosen.items():
        if name in without:
            raise InputError(
                f"a family for '{name}', a param site without a prior",
                "families for sample sites",
                "leave it out (it is fitted by maximum likelihood), or give it a prior with numpyro.sample",
            )
        if name not in (*assignments, *with_prior):
            remedy = nearest(name, (*assignments, *with_prior))
            raise InputError(f"a family for the unknown site '{name}'", "a latent site of the program", remedy)
        if isinstance(family, type) and issubclass(family, AssignmentFamily | ParameterFamily):
            raise InputError(
                f"the class {family.__name__} as the family of '{name}'", "a family", f"write {family.__name__}()"
            )
        if not isinstance(family, AssignmentFamily | ParameterFamily):
            raise InputError(
                f"{family!r} as the family of '{name}'",
                "a family",
                "use Categorical(), Delta(), Tempered(beta) or TopC(C) for assignments, Delta(), Conjugate()"
                " or Gaussian() for sites with a prior",
            )
        if name in with_prior and not isinstance(family, ParameterFamily):
            raise InputError(
                f"{family!r} on the continuous site '{name}'",
                "a family for continuous sites",
                "use Delta() there (MAP), Conjugate() or Gaussian(); Categorical, Tempered and TopC are for the"
                " assignments",
            )
        if name in with_prior and family == Delta(fill_empty=True):
            raise InputError(
                f"{family!r} on the continuous site '{name}', which has no rows to be filled with",
                "Delta() there",
                "leave fill_empty out, or give it to the assignments",
            )
        if name in assignments and not isinstance(family, AssignmentFamily):
            raise InputError(
                f"{family!r} on the assignment '{name}'", "a family for assignments", "use Categorical() there"
            )
    if with_prior and corner.parameters == Delta(fill_empty=True):
        raise InputError(
            f"{corner.parameters!r} for the parameters of the corner {corner.name}", "Delta() there", "leave it out"
        )
    parameters = tuple((name, chosen.get(name, corner.parameters)) for name in with_prior)
    for name, family in (*((name, chosen.get(name, corner.assignments)) for name in assignments), *parameters):
        check_hashable(family, f"the family of '{name}'", "family")
    used = {chosen.get(name, corner.assignments) for name in assignments}
    if len(used) > 1:
        raise InputError(
            f"different families for the assignments ({', '.join(sorted(map(repr, used)))})",
            "one family for all of them, since they are enumerated jointly",
            "give each the same",
        )
    check_contract(next(iter(used)), program.num_components)
    return Families(used.pop(), parameters)
