"""A mutation run: every planted fault is seen by the claim and by the test that should see it, or it survives.

    python -m probem.experiments.verification.mutants --only "entropy" --tests

Every fault of ``faults.FAULTS`` is planted in a copy of the clone, one at a time, and its claim and its test are run
there. Both must pass without it. A claim catches a fault when it fails, a test when an assertion does; an error of
probem's own is a catch as well, any other exception is none. Source: DeMillo, Lipton & Sayward (1978), Hints on test
data selection.
"""

import argparse
import concurrent.futures
import dataclasses
import enum
import os
import queue
import re
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from .faults import FAULTS, Fault

#: Where this file stands in a clone, and the clone.
CLONE = Path(__file__).resolve().parents[2]
# What a copy of the clone does without, anywhere in it and at its top: ``probem/runs`` is a package.
_LEFT_OUT = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info")
_LEFT_OUT_AT_THE_TOP = {"build", "dist", "runs"}
#: Seconds after which a claim or a test is given up.
MOST_SECONDS = 1800
#: Exceptions that are a catch, by name: a comparison that is false, and the sentences of probem.
CATCHES = ("AssertionError", "Failed", "FitError", "InputError")


def _left_out(folder: str, names: list[str]) -> set[str]:
    return _LEFT_OUT(folder, names) | (_LEFT_OUT_AT_THE_TOP if Path(folder) == CLONE else set())


class Verdict(enum.Enum):
    """What came of one claim or one test; the values are the words of the table."""

    PASSES = "no"
    FAILS = "yes"
    BROKEN = "error"
    NOT_RUN = "-"


@dataclasses.dataclass(frozen=True)
class Found:
    """A verdict, and the sentence in which it was said."""

    verdict: Verdict
    said: str = ""


@dataclasses.dataclass(frozen=True)
class Caught:
    """What the claim and the test of a fault found; ``survives`` if one of those that were run saw nothing."""

    fault: Fault
    claim: Found
    test: Found

    @property
    def survives(self) -> bool:
        return any(outcome.verdict in (Verdict.PASSES, Verdict.BROKEN) for outcome in (self.claim, self.test))


def planted(fault: Fault, source: str) -> str:
    """The source with the fault in it.

    Raises
    ------
    ValueError : what it replaces does not occur exactly once
    """
    count = source.count(fault.before)
    if count != 1:
        raise ValueError(f"'{fault.name}': {fault.before!r} occurs {count} times in {fault.file}, and not once")
    return source.replace(fault.before, fault.after)


# Run in a copy: the claim on its data set, without its figure. Exit code 1 where it fails, 3 where it ends in an error
# that is not probem's.
_CLAIM = """
import dataclasses, sys
import jax
jax.config.update("jax_enable_x64", True)
from probem.experiments.verification import verify
from probem.experiments.outcomes.record import VerifySettings
name, data = sys.argv[1:]
claims = [dataclasses.replace(claim, figure=None) for claim in verify.CLAIMS if claim.id == name]
settings = VerifySettings(claims=[name], data=[data], seed=20220725)
outcomes = verify.run(claims, settings, lambda step: None).outcomes
for outcome in outcomes:
    failing = [f"{one.compared}: {one.residual:.3g}" for one in outcome.checks if not one.holds]
    print(outcome.error or "; ".join(failing) or "holds")
failed = [outcome for outcome in outcomes if not outcome.holds]
errors = [outcome.error for outcome in failed if outcome.error]
allowed = all(error.startswith(("FitError", "InputError")) for error in errors)
sys.exit(0 if not failed else 1 if allowed or len(errors) < len(failed) else 3)
"""


class Copy:
    """A copy of the clone, in which one thing is run at a time."""

    def __init__(self, folder: Path) -> None:
        self.root, self._report = folder / "clone", folder / "report.xml"
        shutil.copytree(CLONE, self.root, symlinks=True, ignore=_left_out)
        package = self._python("-c", "import probem; print(probem.__file__)").stdout.strip()
        if not Path(package).is_relative_to(self.root):
            raise RuntimeError(f"the copy in {self.root} runs the package at {package}")

    def _python(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        # Bytecode is told apart by the second and the size of its source: a fault may change neither.
        environment = {
            **os.environ,
            "PYTHONPATH": str(self.root),
            "PYTHONDONTWRITEBYTECODE": "1",
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
            "JAX_ENABLE_COMPILATION_CACHE": "0",
        }
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=self.root,
            env=environment,
            capture_output=True,
            text=True,
            timeout=MOST_SECONDS,
            check=False,
        )

    def claim(self, name: str, data: str) -> Found:
        """The claim on a data set, as ``probem verify --claims NAME --data DATA`` has it."""
        try:
            done = self._python("-c", _CLAIM, name, data)
        except subprocess.TimeoutExpired:
            return Found(Verdict.BROKEN, "it did not end")
        said = (done.stdout if done.returncode in (0, 1, 3) and done.stdout else done.stderr).strip().splitlines()
        verdict = {0: Verdict.PASSES, 1: Verdict.FAILS}.get(done.returncode, Verdict.BROKEN)
        return Found(verdict, " | ".join(said[-3:]))

    def tests(self, *nodes: str) -> Found:
        """Some tests, slow or not, until the first that fails."""
        self._report.unlink(missing_ok=True)
        # None of the project's own options: annotations that are checked as well take half of the time.
        options = ("-o", "addopts=", "-p", "no:cacheprovider", "-x", "-q", f"--junitxml={self._report}")
        try:
            done = self._python("-m", "pytest", *options, *nodes)
        except subprocess.TimeoutExpired:
            return Found(Verdict.BROKEN, "it did not end")
        if done.returncode not in (0, 1):
            said = (done.stdout + done.stderr).strip().splitlines()
            return Found(Verdict.BROKEN, said[-1] if said else f"exit code {done.returncode}")
        return of_report(self._report.read_text(encoding="utf-8"))

    def with_fault(self, fault: Fault, claims: bool, tests: bool) -> Caught:
        """What the claim and the test of a fault find while it is planted."""
        file, nothing = self.root / fault.file, Found(Verdict.NOT_RUN)
        source = file.read_text(encoding="utf-8")
        file.write_text(planted(fault, source), encoding="utf-8")
        try:
            test = self.tests(fault.test) if tests else nothing
            claim = self.claim(*fault.claim) if claims and fault.claim else nothing
        finally:
            file.write_text(source, encoding="utf-8")
        return Caught(fault, claim, test)


def of_report(text: str) -> Found:
    """The verdict of a JUnit report of pytest: a test fails by an exception of ``CATCHES``, or is broken."""
    cases = list(ElementTree.fromstring(text).iter("testcase"))
    for case in cases:
        for part in case:
            message = " ".join((part.get("message") or "").split())
            said = f"{case.get('name')}: {message}"[:200]
            if part.tag == "failure":
                return Found(Verdict.FAILS if _caught(message, part.text or "") else Verdict.BROKEN, said)
            if part.tag in ("error", "skipped"):
                return Found(Verdict.BROKEN, said)
    return Found(Verdict.PASSES) if cases else Found(Verdict.BROKEN, "no test was run")


def _caught(message: str, text: str) -> bool:
    """Whether a failure is by an exception of ``CATCHES``, from its message and pytest's account of it."""
    if message.startswith("assert "):
        return True
    name = re.match(r"[\w.]+", message)
    if name is not None and name[0].endswith("ExceptionGroup"):
        # Of different exceptions in different examples Hypothesis makes one.
        return any(f"{each}:" in text for each in CATCHES)
    return name is not None and name[0].rpartition(".")[2] in CATCHES


def run(faults: Sequence[Fault], claims: bool, tests: bool, jobs: int) -> Iterator[Caught | str]:
    """What was found of every fault, as it is done; a sentence for what does not pass without any fault."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as above, concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        free: queue.Queue[Copy] = queue.Queue()
        for number in range(jobs):
            folder = Path(above) / str(number)
            folder.mkdir()
            free.put(Copy(folder))

        def without(what: tuple[str, ...], is_claim: bool) -> str | None:
            copy = free.get()
            try:
                outcome = copy.claim(*what) if is_claim else copy.tests(*what)
            finally:
                free.put(copy)
            who = f"{' on '.join(what)}: " if is_claim else ""
            return None if outcome.verdict is Verdict.PASSES else f"without a fault, {who}{outcome.said}"

        def with_one(fault: Fault) -> Caught:
            copy = free.get()
            try:
                return copy.with_fault(fault, claims, tests)
            finally:
                free.put(copy)

        # All tests in one process, which compiles what they share once.
        needed = [(tuple(dict.fromkeys(fault.test for fault in faults)), False)] if tests else []
        needed += [(claim, True) for claim in dict.fromkeys(fault.claim for fault in faults) if claims and claim]
        try:
            yield from (said for said in pool.map(lambda need: without(*need), needed) if said)
            yield from pool.map(with_one, faults)
        finally:
            # After Ctrl-C nothing more is begun.
            pool.shutdown(cancel_futures=True)


def line(caught: Caught) -> str:
    """One line of the table: the fault, its claim and whether it caught it, its test and whether it did."""
    fault = caught.fault
    claim = " on ".join(fault.claim) if fault.claim else f"none ({fault.unclaimed})"
    return " | ".join([fault.name, claim, caught.claim.verdict.value, fault.test, caught.test.verdict.value])


def chosen(only: Iterable[str] | None) -> list[Fault]:
    """The faults whose names contain one of the words, all of them without any.

    Raises
    ------
    SystemExit : no fault has a word in its name
    """
    if only is None:
        return list(FAULTS)
    lost = [word for word in only if not any(word in fault.name for fault in FAULTS)]
    if lost:
        raise SystemExit(f"no fault is named {lost[0]!r}")
    return [fault for fault in FAULTS if any(word in fault.name for word in only)]


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table; exit code 1 where a fault survives, or something fails without any."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="WORDS", help="faults with these words in their names")
    side = parser.add_mutually_exclusive_group()
    side.add_argument("--claims", action="store_true", help="run the claims alone")
    side.add_argument("--tests", action="store_true", help="run the tests alone")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="copies worked in at once (1)")
    options = parser.parse_args(arguments)
    faults = chosen(options.only)
    print("fault | claim | caught | test | caught")
    survivors, unsound = [], 0
    for each in run(faults, not options.tests, not options.claims, options.jobs):
        if isinstance(each, str):
            unsound += 1
            print(each, flush=True)
            continue
        print(line(each), flush=True)
        if each.survives:
            survivors.append(each)
            for name, outcome in (("claim", each.claim), ("test", each.test)):
                if outcome.verdict in (Verdict.PASSES, Verdict.BROKEN):
                    print(f"    {name}: {outcome.said or 'passes'}", flush=True)
    print(f"{len(faults)} faults, {len(survivors)} survive" + (f"; {unsound} fail without any" if unsound else ""))
    raise SystemExit(1 if survivors or unsound else 0)


if __name__ == "__main__":
    main()
