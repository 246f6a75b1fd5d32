"""Everything in the README and the pages of docs/ that can be run is run: code, the calls in a table, commands; outputs
are compared.

All of it runs in a copy of the tree, by fresh interpreters in which warnings are errors; the pages go on from one
another, the README first. A python block that begins with a path in a comment is a file there. The two commands that
set up an environment are run word for word by .ci/run.
"""

import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# In the order in which names are made. Pages of experiments have tests of their own (tests/experiments/research).
FIRST = ("README.md", "docs/choosing.md", "docs/scikit-learn.md", "docs/numpyro.md", "docs/reference.md")
OTHERS = sorted(
    page.relative_to(ROOT).as_posix() for page in (ROOT / "docs").glob("*.md") if page.name != "experiments.md"
)
PAGES = {page: (ROOT / page).read_text(encoding="utf-8") for page in dict.fromkeys((*FIRST, *OTHERS))}

# (language, text, page, line of its first line) of every fenced block, in order.
BLOCKS = [
    (found[1], found[2], page, text.count("\n", 0, found.start(2)) + 1)
    for page, text in PAGES.items()
    for found in re.finditer(r"^```(\w*)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
]
# The first line of a block that is a file, and the files themselves.
FILE = re.compile(r"# (\S+\.py)\n")
FILES = {found[1]: text for kind, text, *_ in BLOCKS if kind == "python" and (found := FILE.match(text))}
# (command, what it prints) of every console block.
COMMANDS = [
    (command, output)
    for kind, text, *_ in BLOCKS
    if kind == "console"
    for command, output in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", text, flags=re.MULTILINE)
]
# Those that take less than five seconds.
QUICK = ("probem explain",)

# Runs [source, page, line] triples in one namespace and prints what each printed; errors name the page and the line.
RUNNER = """
import contextlib, io, json, sys
namespace, printed = {"__name__": "pages"}, []
for source, page, line in json.load(open("steps.json")):
    with contextlib.redirect_stdout(io.StringIO()) as output:
        exec(compile("\\n" * (line - 1) + source, page, "exec"), namespace)
    printed.append(output.getvalue())
json.dump(printed, open("printed.json", "w"))
"""


def steps():
    """[source, page, line, expected output] of every python block that is no file and every call in a table, in order
    of the pages.
    """
    found = []
    for (kind, text, page, line), (next_kind, output, *_) in zip(BLOCKS, [*BLOCKS[1:], ("", "")], strict=True):
        if kind == "python" and not FILE.match(text):
            found.append([text, page, line, output if next_kind == "text" else ""])
    for page, text in PAGES.items():
        for table in re.finditer(r"^\| you write \|.*\n\|[-|]+\n((?:\|.*\n)+)", text, flags=re.MULTILINE):
            first = text.count("\n", 0, table.start(1)) + 1
            for number, row in enumerate(table[1].splitlines()):
                calls = re.findall("`([^`]+)`", row.split(" | ")[0])
                found.extend([call, page, first + number, ""] for call in calls)
    order = list(PAGES)
    return sorted(found, key=lambda step: (order.index(step[1]), step[2]))


@pytest.fixture
def clone(tmp_path):
    """A copy of the tree with the files of the pages in their places, its views registered as it says."""
    folder = tmp_path / "clone"
    anywhere = shutil.ignore_patterns(".*", "*.egg-info", "__pycache__")

    def left_out(path, names):
        # What runs and builds write stands at the top; probem/runs is a package.
        return anywhere(path, names) | ({"build", "dist", "runs"} if Path(path) == ROOT else set())

    shutil.copytree(ROOT, folder, symlinks=True, ignore=left_out)
    for name, text in FILES.items():
        assert not (folder / name).exists()
        (folder / name).write_text(text)
    register = folder / "probem" / "exponential" / "__init__.py"
    named = "from .geometric import Geometric\nVIEWS = (Geometric, "
    text, count = re.subn(r"^VIEWS = \(", named, register.read_text(), flags=re.MULTILINE)
    assert count == 1
    register.write_text(text)
    # The benchmark as it stands takes most of an hour. tests/experiments/benchmarks runs the quick one whole: here what
    # an import takes, which is one of its kinds.
    quick = (folder / "configs" / "benchmark_quick.yaml").read_text()
    kept = quick[: quick.index("iterations:")] + quick[quick.index("processes:") :]
    (folder / "configs" / "benchmark.yaml").write_text(kept)
    return folder


def run(arguments, clone):
    """What an interpreter prints in the copy of the tree."""
    environment = {**os.environ, "PYTHONPATH": str(clone), "MPLBACKEND": "Agg", "PYTHONUTF8": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "error", *arguments], cwd=clone, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# How a number stands in a page, and what may be printed in its place: times and residuals as small as rounding are
# the machine's own.
PATTERNS = {
    "time": (r"[\d.]+(?= s\b)", r"[\d.]+"),
    "rounding": (r"[\d.]+ × 10⁻¹[⁰¹²³⁴⁵⁶⁷⁸⁹]", r"(?:0|[\d.]+ × 10⁻¹[⁰¹²³⁴⁵⁶⁷⁸⁹])"),
    "other": (r"(?<![\w.])-?\d+(?:\.\d+)?(?:e[-+]\d+)?", r"(-?\d+(?:\.\d+)?(?:e[-+]\d+)?)"),
}
NUMBER = re.compile("|".join(f"(?P<{kind}>{expected})" for kind, (expected, _) in PATTERNS.items()))


def assert_printed(expected, printed):
    """Lines and words are equal, numbers to one unit of the last digit shown; ``...`` is any lines, or words."""

    def lines(text):
        ruled = re.sub(r"-{2,}|─+", "--", text)
        return [" ".join(line.split()) for line in ruled.splitlines() if line.strip()]

    wanted, numbers, pattern = lines(expected), [], ""
    for line in wanted:
        if line == "...":
            pattern += r"(?:.*\n)*?"
            continue
        at = 0
        for found in NUMBER.finditer(line):
            pattern += re.escape(line[at : found.start()])
            at = found.end()
            pattern += PATTERNS[found.lastgroup][1]
            if found.lastgroup == "other":
                numbers.append(found[0])
        pattern = (pattern + re.escape(line[at:])).replace(re.escape(" ... "), " .* ") + r"\n"
    got = "".join(line + "\n" for line in lines(printed))
    match = re.fullmatch(pattern, got)
    assert match, f"the page has\n{expected}\nbut this was printed\n{printed}"
    for want, have in zip(numbers, match.groups(), strict=True):
        mantissa, _, exponent = want.partition("e")
        places = len(mantissa.partition(".")[2])
        # Rounding may fall to either side of the last digit; whole numbers are counts.
        unit = 1.01 * 10.0 ** (int(exponent or 0) - places) if places else 0.0
        assert abs(float(want) - float(have)) <= unit, f"the page has {want}, {have} was printed:\n{printed}"


def test_nothing_goes_unexecuted():
    assert {kind for kind, *_ in BLOCKS} == {"bash", "python", "text", "console"}
    commands = runpy.run_path(str(ROOT / ".ci" / "readme_command"))["commands"](PAGES["README.md"])
    assert [text.strip() for kind, text, *_ in BLOCKS if kind == "bash"] == [commands["verify"], commands["test"]]
    # Every output has the block that prints it before it, and every line of a console block a command.
    before = [kind for kind, *_ in BLOCKS]
    assert {before[number - 1] for number, kind in enumerate(before) if kind == "text"} == {"python"}
    assert [text[:2] for kind, text, *_ in BLOCKS if kind == "console"] == ["$ "] * before.count("console")
    assert set(FILES) == {"probem/exponential/geometric.py"}  # which the fixture registers
    assert all(command.split()[0] in ("probem", "python") for command, _ in COMMANDS)
    assert len(steps()) > before.count("python")


def test_paths_exist():
    """In prose, in commands and in links."""
    for page, text in PAGES.items():
        named = re.findall(r"\b(?:probem|models|experiments|configs|tests)/[\w./]*\w", text)
        named += [(Path(page).parent / link).as_posix() for link in re.findall(r"\]\(([\w./-]+)\)", text)]
        assert [path for path in named if path not in FILES and not (ROOT / path).exists()] == [], page


def test_the_readme_is_short():
    assert PAGES["README.md"].count("\n") < 250


@pytest.mark.slow
def test_python(clone):
    (clone / "steps.json").write_text(json.dumps([step[:3] for step in steps()]))
    run(["-c", RUNNER], clone)
    outputs = json.loads((clone / "printed.json").read_text())
    for (source, page, line, expected), printed in zip(steps(), outputs, strict=True):
        assert bool(expected) == bool(printed), f"{page}, line {line}: {source} printed {printed!r}"
        assert_printed(expected, printed)


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        pytest.param(command, output, id=command, marks=[] if command.startswith(QUICK) else [pytest.mark.slow])
        for command, output in COMMANDS
    ],
)
def test_command(command, expected, clone):
    program, *arguments = shlex.split(command)
    printed = run(["-m", "probem.cli", *arguments] if program == "probem" else arguments, clone)
    if expected:
        assert_printed(expected, printed)


def test_comparison_of_outputs():
    """A harness that lets everything pass would be worth nothing."""
    assert_printed("F = -1.250 nats, 3 steps\n", "F =  -1.2509 nats, 3 steps  \n")
    assert_printed("a  b\n---  ---\n...\nlast 1.00 s\n", "a b\n--  ------\n\n2\n3\nlast 7.31 s\n")
    assert_printed("of 6.7 × 10⁻¹⁶ holds\n", "of 1.2 × 10⁻¹⁵ holds\n")
    assert_printed("a ... 2 b", "a 1 b 2 b")
    for expected, printed in [
        ("a ... 2 b", "a 1\n2 b"),
        ("F = -1.250", "F = -1.253"),
        ("F = 1.25", "F = -1.25"),
        ("3 steps", "4 steps"),
        ("steps", "step"),
        ("1\n2", "1"),
        ("1", "1\n2"),
        ("...\n3", "1\n2"),
        ("6.7 × 10⁻¹⁶ holds", "6.7 × 10⁻⁸ holds"),
    ]:
        with pytest.raises(AssertionError, match="the page has"):
            assert_printed(expected, printed)
