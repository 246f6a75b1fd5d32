"""How the tests run: float64, the same draws every time, compiled code kept for the next run, no window for figures."""

import gc
import os
import warnings
import zlib

os.environ["MPLBACKEND"] = "Agg"  # before anything imports matplotlib

from collections.abc import Iterator

import hypothesis
import jax
import pytest

jax.config.update("jax_enable_x64", True)
# Small data: most of the time to compile goes into what pays off on large data only. Processes started inherit it.
jax.config.update("jax_disable_most_optimizations", True)
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
# A program that is cut up to be compiled on many cores takes an eighth more of the few there are.
flags = "--xla_cpu_parallel_codegen_split_count=1"
jax.config.update("jax_traceback_in_locations_limit", 0)
# NumPyro's densities of all rows wait for themselves on two cores (probem/exponential/linalg.py says why).
if jax.__version_info__[:2] == (0, 10):  # a flag that XLA does not know ends the process
    flags += " --xla_cpu_use_fusion_emitters=false --xla_cpu_scheduler_type=CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}"
# jax_numpy_rank_promotion stays at its default: log_prob of NumPyro's Normal, MultivariateNormal and Poisson broadcasts
# a value [N, D] against parameters [K, 1, D] by rank promotion, so under "raise" no table of such mixtures can be read.
# Under "warn" the warnings name no caller, so ours cannot be told from NumPyro's. Tests of arithmetic that runs no
# program ask for jax.numpy_rank_promotion("raise") themselves.

# Tracing makes many objects and no garbage: a tenth of the time would go into looking for some.
gc.set_threshold(100_000, 50, 100)

# No deadline: the first example of a shape compiles.
hypothesis.settings.register_profile("probem", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("probem")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--share", metavar="I/M", help="of the slow tests run one in M, the I-th share: 0/4 to 3/4")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the slow tests of other shares: by their names, so that a share is the same on every machine."""
    if config.getoption("--share") is None:
        return
    number, count = map(int, config.getoption("--share").split("/"))
    if not 0 <= number < count:
        raise pytest.UsageError(f"--share={number}/{count}: expected 0/{count} to {count - 1}/{count}")
    kept, left = [], []
    for item in items:
        is_here = item.get_closest_marker("slow") is None or zlib.crc32(item.nodeid.encode()) % count == number
        (kept if is_here else left).append(item)
    items[:] = kept
    config.hook.pytest_deselected(items=left)


def pytest_collection() -> None:
    """Read what an earlier run compiled: a third of the CPU at least. A compilation that is read counts as one."""
    # Annotations are checked in what is imported after pytest has begun.
    from probem.jit import disk

    # All tests leave as much as users keep, and a folder that is too small loses what the next run asks for first: they
    # have one beside the users', with room for several runs. JAX counts its name among what was compiled for.
    chosen = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    with warnings.catch_warnings(action="ignore"):
        disk.cache(chosen or disk._default().with_name("probem-tests"), largest=2**30)


def pytest_collection_finish() -> None:
    """What was imported until now stays: a quarter of a million objects that no search for garbage has to look at."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="module")
def _compiled_for_one_module() -> Iterator[None]:
    """What a module compiled is of no use to the next: gigabytes, and the maps of which a process has so many."""
    yield
    jax.clear_caches()
    gc.collect()
