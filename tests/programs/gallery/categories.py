"""Categories, angles and shares: latent classes, annotators, words of documents, chains."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.distributions import constraints

from tests.programs.gallery.entry import bayesian, fitted, free, groups, positive, prior_shares, shares

_RANDOM, _GROUP = groups(3)
ANSWERS = (_RANDOM.random((60, 4)) < np.array([[0.2, 0.3, 0.7, 0.2], [0.8, 0.7, 0.3, 0.9]])[_GROUP]).astype(int)
LEVELS = np.array([[_RANDOM.choice(3, p=[[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]][g]) for _ in range(3)] for g in _GROUP])
VERDICTS = np.where(_RANDOM.random((60, 3)) < 0.8, _GROUP[:, None], 1 - _GROUP[:, None])
DOCUMENTS = np.arange(60) // 20
WORDS = np.array([_RANDOM.choice(4, p=[[0.5, 0.3, 0.1, 0.1], [0.1, 0.1, 0.4, 0.4]][g]) for g in _GROUP])
ANGLES = _RANDOM.vonmises(np.array([-1.8, 0.9])[_GROUP], np.array([3.0, 6.0])[_GROUP])
SHARES = np.array([_RANDOM.dirichlet([[6.0, 3.0, 1.0], [1.0, 3.0, 6.0]][g]) for g in _GROUP])
_NEXT = np.array([[[0.8, 0.2], [0.3, 0.7]], [[0.3, 0.7], [0.7, 0.3]]])


def _chains() -> np.ndarray:
    states = np.zeros((60, 8), int)
    for place in range(1, 8):
        states[:, place] = _RANDOM.random(60) < _NEXT[_GROUP, states[:, place - 1], 1]
    return states


CHAINS = _chains()


def answers(x: jax.Array) -> None:
    """Latent classes of people who answer yes or no."""
    weights = prior_shares()
    with numpyro.plate("components", 2):
        probs = numpyro.sample("probs", dist.Beta(jnp.ones((2, 4)) * 2, 2.0).to_event(1))
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(weights))
        numpyro.sample("x", dist.Bernoulli(probs=probs[t]).to_event(1), obs=x)


def items(x: jax.Array) -> None:
    """Several items of three levels."""
    weights = prior_shares()
    with numpyro.plate("components", 2):
        levels = numpyro.sample("levels", dist.Dirichlet(2.0 * jnp.ones((3, 3))).to_event(1))
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(weights))
        numpyro.sample("x", dist.Categorical(probs=levels[t]).to_event(1), obs=x)


def annotators(verdicts: jax.Array) -> None:
    """Dawid & Skene: three annotators, each with a matrix of confusion."""
    weights = prior_shares()
    with numpyro.plate("annotators", 3, dim=-2), numpyro.plate("truths", 2, dim=-1):
        confusion = numpyro.sample("confusion", dist.Dirichlet(1.5 + jnp.eye(2)))
    with numpyro.plate("data", verdicts.shape[0]):
        t = numpyro.sample("t", dist.Categorical(weights))
        for place in range(3):
            numpyro.sample(f"verdict_{place}", dist.Categorical(confusion[place, t]), obs=verdicts[:, place])


def words(word: jax.Array, document: jax.Array) -> None:
    """Words of documents: each has a topic, whose share its document says."""
    theta = numpyro.param("theta", jnp.array([[0.7, 0.3], [0.5, 0.5], [0.3, 0.7]]), constraint=constraints.simplex)
    topics = numpyro.param(
        "topics", jnp.array([[0.4, 0.3, 0.2, 0.1], [0.1, 0.2, 0.3, 0.4]]), constraint=constraints.simplex
    )
    with numpyro.plate("data", word.shape[0]):
        t = numpyro.sample("t", dist.Categorical(theta[document]))
        numpyro.sample("word", dist.Categorical(topics[t]), obs=word)


def words_priors(word: jax.Array, document: jax.Array) -> None:
    """The same with priors: latent Dirichlet allocation."""
    theta = numpyro.sample("theta", dist.Dirichlet(jnp.full((3, 2), 1.5)).to_event(1))
    topics = numpyro.sample("topics", dist.Dirichlet(jnp.full((2, 4), 1.5)).to_event(1))
    with numpyro.plate("data", word.shape[0]):
        t = numpyro.sample("t", dist.Categorical(theta[document]))
        numpyro.sample("word", dist.Categorical(topics[t]), obs=word)


def angles(x: jax.Array) -> None:
    weights, concentration = shares(), positive("concentration", [1.0, 1.0])
    loc = numpyro.param("loc", jnp.array([-1.0, 1.0]), constraint=constraints.circular)
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(weights))
        numpyro.sample("x", dist.VonMises(loc[t], concentration[t]), obs=x)


def directions(x: jax.Array) -> None:
    """Directions in the plane as unit vectors."""
    weights, concentration = shares(), free("concentration", [[0.0, -1.0], [1.0, 0.5]])
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(weights))
        numpyro.sample("x", dist.ProjectedNormal(concentration[t]), obs=x)


def compositions(x: jax.Array) -> None:
    weights, concentration = shares(), positive("concentration", [[3.0, 2.0, 1.0], [1.0, 2.0, 3.0]])
    with numpyro.plate("data", x.shape[0]):
        t = numpyro.sample("t", dist.Categorical(weights))
        numpyro.sample("x", dist.Dirichlet(concentration[t]), obs=x)


def chains(states: jax.Array) -> None:
    """A Markov chain in every row, with the transitions of its component."""
    weights = shares()
    following = numpyro.param(
        "following", jnp.array([[[0.7, 0.3], [0.4, 0.6]], [[0.4, 0.6], [0.6, 0.4]]]), constraint=constraints.simplex
    )
    with numpyro.plate("data", states.shape[0]):
        t = numpyro.sample("t", dist.Categorical(weights))
        steps = dist.Categorical(following[t[..., None], states[:, :-1]])
        numpyro.sample("states", steps.to_event(1), obs=states[:, 1:])


def chains_priors(states: jax.Array) -> None:
    weights = prior_shares()
    following = numpyro.sample("following", dist.Dirichlet(1.0 + _CHAIN_PRIOR).to_event(2))
    with numpyro.plate("data", states.shape[0]):
        t = numpyro.sample("t", dist.Categorical(weights))
        steps = dist.Categorical(following[t[..., None], states[:, :-1]])
        numpyro.sample("states", steps.to_event(1), obs=states[:, 1:])


_CHAIN_PRIOR = np.array([[[2.0, 1.0], [1.0, 2.0]], [[1.0, 2.0], [2.0, 1.0]]])
CATEGORIES = {
    "latent classes, yes or no": bayesian(answers, ANSWERS),
    "latent classes, items of three levels": bayesian(items, LEVELS),
    "annotators (Dawid-Skene)": bayesian(annotators, VERDICTS),
    "words of documents": fitted(words, WORDS, DOCUMENTS, on_edge=("topics",)),
    "words of documents, with priors (LDA)": bayesian(words_priors, WORDS, DOCUMENTS),
    "angles (von Mises)": fitted(angles, ANGLES),
    "directions (projected normal)": fitted(directions, np.stack([np.cos(ANGLES), np.sin(ANGLES)], 1)),
    "compositions (Dirichlet)": fitted(compositions, SHARES),
    "Markov chains in rows": fitted(chains, CHAINS),
    "Markov chains in rows, with priors": bayesian(chains_priors, CHAINS),
}
