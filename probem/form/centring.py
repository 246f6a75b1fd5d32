"""Rows and locations of location families around an origin, about which their second moments keep their digits."""

from collections.abc import Mapping

from jaxtyping import Array, Float, Shaped

from probem import exponential
from probem.form.sites import ExponentialSite


def centred_events(
    term: ExponentialSite, value: Shaped[Array, "*shape"], shifts: Mapping[str, Array]
) -> Shaped[Array, "*shape"]:
    """Events of a term ``[..., C, *event]`` less its origin, or as they are where the family has no location."""
    return value - shifts[term.site] if term.view.is_location else value


def centred_arguments(
    term: ExponentialSite, arguments: exponential.Arguments, shifts: Mapping[str, Array]
) -> exponential.Arguments:
    """The arguments of the density of centred events."""
    if not term.view.is_location:
        return arguments
    return term.view.around(arguments, shifts[term.site])


def centred_location(
    term: ExponentialSite, location: exponential.Location | None, shifts: Mapping[str, Array]
) -> exponential.Location | None:
    """What is known of the location of centred events; None where the family has none."""
    return None if location is None else term.view.location_around(location, shifts[term.site])


def argument_moment(
    term: ExponentialSite,
    name: str,
    mean_statistics: Float[Array, "... S"],
    arguments: exponential.Arguments,
    shifts: Mapping[str, Array],
) -> Float[Array, "..."]:
    """The average that gives an argument, from the mean statistics of centred events.

    Arguments and moment are those of the events themselves.
    """
    moment = term.view.moment(name, mean_statistics, centred_arguments(term, arguments, shifts))
    return term.view.moment_from(name, moment, shifts[term.site]) if term.view.is_location else moment
