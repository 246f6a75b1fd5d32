"""What can be said of every site of a program without computing anything: shapes, supports and plates."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jax.core import Tracer
from numpyro import handlers
from numpyro.distributions import MaskedDistribution, constraints
from numpyro.primitives import Messenger

from probem.errors import InputError
from probem.jit.tracing import isolated
from probem.program.densities import drawn
from probem.program.mixtures import is_mixture
from probem.program.sites import RowSpec


class _Given(Messenger):
    """Notes the sites that a handler around the program has given a value: they stay there."""

    def __init__(self, function: Callable[..., Any], names: set[str]) -> None:
        super().__init__(function)
        self.names = names

    def process_message(self, msg: dict[str, Any]) -> None:
        if msg["type"] in ("sample", "param") and msg["value"] is not None and not msg.get("is_observed", False):
            self.names.add(msg["name"])


@dataclasses.dataclass(frozen=True)
class AbstractSite:
    """What is known of a site without its values: role, shapes, plates, support and constraint."""

    type: str
    observed: bool
    given: bool
    factor: bool
    discrete: bool
    enumerable: bool
    shape: tuple[int, ...]
    batch_shape: tuple[int, ...]
    event_shape: tuple[int, ...]
    stack: tuple[Any, ...]
    size: tuple[int | None, ...]
    support: Any
    constraint: Any
    weighted: str = ""
    is_mixture: bool = False


@isolated()
def abstract_sites(function: Callable[..., Any], spec: RowSpec, num_rows: int) -> dict[str, AbstractSite]:
    """What can be said of every site without computing anything."""
    sites: dict[str, AbstractSite] = {}
    elsewhere: dict[str, AbstractSite] = {}
    given: set[str] = set()
    watched = _Given(function, given)

    def look(*data: Any) -> None:
        for name, site in handlers.trace(drawn(watched, 0)).get_trace(*data).items():
            sites[name] = _look_at(site, name in given)

    def look_elsewhere(*data: Any) -> None:
        moved = handlers.substitute(watched, substitute_fn=lambda site: None if site["name"] in given else _moved(site))
        for name, site in handlers.trace(drawn(moved, 1)).get_trace(*data).items():
            elsewhere[name] = _look_at(site, name in given)

    shapes = ", ".join(f"({', '.join(['N', *map(str, shape)])}{'' if shape else ','})" for shape, _ in spec.rows)
    try:
        jax.eval_shape(look, *spec.abstract(num_rows))
        jax.eval_shape(look_elsewhere, *spec.abstract(num_rows))
        if any(_depends_on_values(site) for site in sites.values()):
            # The bounds of a support may be values of the program: then it has to run.
            with jax.ensure_compile_time_eval():
                look(*spec.zeros(num_rows))
                look_elsewhere(*spec.zeros(num_rows))
    except Exception as error:
        text = " ".join(str(error).split())
        expected, remedy = _remedy(error, text)
        raise InputError(
            f"{type(error).__name__} from the program on data of shape {shapes}: {text[:300]}", expected, remedy
        ) from error
    for name, site in elsewhere.items():
        here, there = jax.tree.leaves(sites[name].constraint), jax.tree.leaves(site.constraint)
        is_global = not site.given and (
            site.type == "param" or (site.type == "sample" and not site.observed and not site.discrete)
        )
        if is_global and not all(np.array_equal(a, b) for a, b in zip(here, there, strict=True)):
            raise InputError(
                f"the site '{name}' with a support that depends on the values of other sites",
                "supports that stay where they are",
                "write it as a function of a site with a fixed support, such as low + width * fraction",
            )
    return sites


def _remedy(error: Exception, text: str) -> tuple[str, str]:
    """What a program that does not run should do, and how."""
    if isinstance(error, jax.errors.TracerBoolConversionError):
        return (
            "a program without a Python branch on a value, be it an assignment or data",
            "index by the assignment, loc[t], or choose with jnp.where",
        )
    if "string indexing" in text:
        return (
            "data that has names, where the program indexes it by name",
            "pass a mapping of its columns: dict(df) of a DataFrame df",
        )
    return (
        "a program that runs for any number of rows",
        "take the number of rows from the data (x.shape[0]), bind every other argument beforehand with"
        " functools.partial, and run it once under numpyro.handlers.seed to see the error whole",
    )


def _moved(site: dict[str, Any]) -> Any:
    """Another value for every parameter: what follows it in the program follows it there."""
    if site["type"] != "param" or callable(site["args"][0]):
        return None
    value = site["args"][0]
    if isinstance(value, Tracer):
        return 0.9 * value + 0.01
    # What is known stays known, so that what is computed from it is known at once.
    with jax.ensure_compile_time_eval():
        moved = 0.9 * np.asarray(value) + 0.01
        return jnp.asarray(moved) if isinstance(value, jax.Array) else moved


def _look_at(site: dict[str, Any], given: bool) -> AbstractSite:
    fn = site["fn"] if site["type"] == "sample" else None
    discrete = fn is not None and bool(getattr(fn.support, "is_discrete", False))
    enumerable = discrete and bool(fn.has_enumerate_support)
    support: Any = ()
    if enumerable and not site["is_observed"]:
        try:
            with jax.ensure_compile_time_eval():
                support = tuple(fn.enumerate_support(expand=False).reshape(-1).tolist())
        except jax.errors.ConcretizationTypeError:
            support = None
        except NotImplementedError:  # several values at once, which is refused further on
            support = ()
    return AbstractSite(
        type=site["type"],
        observed=bool(site.get("is_observed", False)),
        given=given,
        factor=isinstance(fn, numpyro.distributions.Unit),
        discrete=discrete,
        enumerable=enumerable,
        shape=tuple(jnp.shape(site["value"])),
        batch_shape=() if fn is None else tuple(fn.batch_shape),
        event_shape=() if fn is None else tuple(fn.event_shape),
        stack=tuple(site.get("cond_indep_stack", ())),
        size=tuple(site["args"]) if site["type"] == "plate" else (),
        support=support,
        constraint=site.get("kwargs", {}).get("constraint", constraints.real) if fn is None else fn.support,
        weighted="" if fn is None else _weighted(fn, site["scale"]),
        is_mixture=bool(site.get("is_observed", False)) and is_mixture(fn),
    )


def _weighted(fn: Any, scale: Any) -> str:
    """The handler that leaves out or multiplies log probabilities of a site, if there is one."""
    while hasattr(fn, "base_dist"):
        if isinstance(fn, MaskedDistribution) and not _is_all(fn._mask, 1.0):
            return "handlers.mask"
        fn = fn.base_dist
    return "" if scale is None or _is_all(scale, 1.0) else "handlers.scale"


def _is_all(value: Any, number: float) -> bool:
    return not isinstance(value, Tracer) and bool(np.all(np.asarray(value) == number))


def _depends_on_values(site: AbstractSite) -> bool:
    latent = site.type == "param" or (site.type == "sample" and not site.observed)
    traced = any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(site.constraint))
    return latent and (site.support is None or (traced and not site.discrete))
