"""What is installed is what stands in the tree, under the names that users import."""

import os
import re
import runpy
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import jax.numpy as jnp
import jaxtyping
import pytest

from probem.models import gmm

ROOT = Path(__file__).parents[2]
LINKED = ("models", "experiments", "configs")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SETUPTOOLS = PROJECT["tool"]["setuptools"]


def python(code: str, *, cwd: Path, path: Path | None = None) -> str:
    """What a fresh interpreter prints that runs ``code`` in ``cwd`` with ``path`` before everything installed."""
    environment = {**os.environ, "PYTHONPATH": str(path) if path else ""}
    done = subprocess.run([sys.executable, "-c", code], cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def tree() -> dict[str, Path]:
    """Every file that belongs in the wheel: its path there, and its place in the repository."""
    files = {}
    for folder in ("probem", *LINKED):
        for file in (ROOT / folder).rglob("*"):
            linked_twice = folder == "probem" and file.relative_to(ROOT / folder).parts[0] in LINKED
            if file.is_file() and file.parent.name != "__pycache__" and not linked_twice:
                inside = file.relative_to(ROOT).as_posix()
                files[inside if folder == "probem" else f"probem/{inside}"] = file
    return files


def test_links():
    for name in LINKED:
        link = ROOT / "probem" / name
        assert link.is_symlink()
        assert os.readlink(link) == f"../{name}"
        assert link.is_dir()


def test_package_list_against_tree():
    folders = {
        Path(inside).parent.as_posix().replace("/", ".") for inside in tree() if inside.endswith((".py", ".yaml"))
    }
    assert set(SETUPTOOLS["packages"]) == folders


def test_direct_dependencies_are_pinned():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert [
        line for line in pins if not re.fullmatch(r"[\w.-]+==[\d.]+( ; python_version (<|>=) '3\.12')?", line)
    ] == []
    pinned = {re.split("==", line)[0].lower() for line in pins}
    extras = PROJECT["project"]["optional-dependencies"].values()
    wanted = [*PROJECT["project"]["dependencies"], *(requirement for extra in extras for requirement in extra)]
    names = {re.match(r"[\w.-]+", requirement)[0].lower() for requirement in wanted} - {"probem"}
    assert names - pinned == set()


@pytest.mark.parametrize("through_sdist", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_wheel_from_another_directory(tmp_path, through_sdist):
    source = tmp_path / "source"
    anywhere, at_the_top = (
        shutil.ignore_patterns(*names) for names in ((".*", "*.egg-info", "__pycache__"), ("build", "dist", "runs"))
    )

    def left_out(folder, names):
        return anywhere(folder, names) | (at_the_top(folder, names) if Path(folder) == ROOT else set())

    shutil.copytree(ROOT, source, symlinks=True, ignore=left_out)
    if through_sdist:
        python(f"from setuptools import build_meta; build_meta.build_sdist({str(tmp_path)!r})", cwd=source)
        shutil.unpack_archive(next(tmp_path.glob("probem-*.tar.gz")), tmp_path / "unpacked", filter="data")
        source = next((tmp_path / "unpacked").iterdir())
    python(f"from setuptools import build_meta; build_meta.build_wheel({str(tmp_path)!r})", cwd=source)
    site = tmp_path / "site"
    with zipfile.ZipFile(next(tmp_path.glob("probem-*.whl"))) as wheel:
        assert {name for name in wheel.namelist() if ".dist-info/" not in name} == set(tree())
        wheel.extractall(site)
    shutil.rmtree(source)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    code = """
import importlib, importlib.resources, importlib.util, pkgutil
import probem
names = [module.name for module in pkgutil.walk_packages(probem.__path__, "probem.")]
modules = [importlib.import_module(name) for name in names if not name.endswith(".__main__")]  # which would run
print(probem.__file__, *(module.__file__ for module in modules))
print(*sorted(file.name for file in importlib.resources.files("probem.configs").iterdir() if file.suffix == ".yaml"))
print(*(importlib.util.find_spec(name) for name in ("models", "experiments", "configs")))
"""
    modules, configurations, top_level = python(code, cwd=elsewhere, path=site).splitlines()
    importable = {site / name for name in tree() if name.endswith(".py") and not name.endswith("__main__.py")}
    assert {Path(module) for module in modules.split()} == importable
    assert configurations.split() == sorted(file.name for file in (ROOT / "configs").glob("*.yaml"))
    assert top_level.split() == ["None"] * 3


@pytest.fixture(scope="module")
def unzipped(tmp_path_factory):
    """The repository as a ZIP download leaves it: in place of each link a file that holds its path."""
    folder = tmp_path_factory.mktemp("above") / "probem"
    archive = folder.parent / "probem.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for name in ("probem", *LINKED):
            for path in sorted((ROOT / name).rglob("*")):
                linked = name == "probem" and path.relative_to(ROOT / name).parts[0] in LINKED
                if path.is_file() and path.parent.name != "__pycache__" and not linked:
                    file.write(path, path.relative_to(ROOT))
        for name in LINKED:
            file.writestr(f"probem/{name}", os.readlink(ROOT / "probem" / name))
        for name in ("pyproject.toml", "README.md", "LICENSE", "build_backend.py", "MANIFEST.in"):
            file.write(ROOT / name, name)
    with zipfile.ZipFile(archive) as file:
        file.extractall(folder)
    return folder


USE = """
import importlib.resources, probem, probem.cli, probem.models, probem.experiments.claims.datasets
files = importlib.resources.files("probem.configs") / "verify.yaml", importlib.resources.files("probem.experiments")
print(probem.fit.__name__, probem.models.gmm.__name__, files[0].is_file(), (files[1] / "report/report.css").is_file())
"""


@pytest.mark.slow
def test_a_zip_download(unzipped, tmp_path):
    expected = "fit gmm True True"
    # As it lies there, started inside, and from its wheel.
    assert python(USE, cwd=unzipped).strip() == expected
    python(f"import build_backend; build_backend.build_wheel({str(tmp_path)!r})", cwd=unzipped)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        assert {name for name in wheel.namelist() if ".dist-info/" not in name} == set(tree())
        wheel.extractall(tmp_path / "site")
    assert python(USE, cwd=tmp_path, path=tmp_path / "site").strip() == expected
    # In the folder above, where the download is called as the package is.
    assert python(USE, cwd=unzipped.parent, path=tmp_path / "site").strip() == expected


@pytest.mark.slow
def test_an_editable_install(unzipped, tmp_path):
    python(f"import build_backend; build_backend.build_editable({str(tmp_path)!r})", cwd=unzipped)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        assert [name for name in wheel.namelist() if ".dist-info/" not in name] == ["probem/__init__.py"]
        wheel.extractall(tmp_path / "site")
    for folder in (tmp_path, unzipped.parent):
        assert python(USE, cwd=folder, path=tmp_path / "site").strip() == "fit gmm True True"
    code = "import probem, importlib.util as u; print(probem.__file__, *map(u.find_spec, ('models', 'experiments')))"
    found = python(code, cwd=unzipped.parent, path=tmp_path / "site").split()
    assert found == [str(unzipped / "probem" / "__init__.py"), "None", "None"]


def test_import_adds_nothing_but_probem_to_numpyro():
    code = """
import sys
import numpyro
before = set(sys.modules)
import probem
print(*{name.partition(".")[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names))
"""
    # What jax and numpyro load late is theirs; anything else would be a dependency of the core, or slow to import.
    assert set(python(code, cwd=ROOT).split()) <= {"probem", "jax", "numpyro", "numpy"}


def test_annotations_are_enforced_while_testing():
    """The import hook that pyproject.toml asks pytest for is at work, in the linked packages too."""
    with pytest.raises(jaxtyping.TypeCheckError, match="num_components"):
        gmm(jnp.zeros((3, 2)), num_components="two")


def test_readme_has_the_two_commands():
    found = runpy.run_path(str(ROOT / ".ci" / "readme_command"))["commands"]((ROOT / "README.md").read_text())
    for name, extra, last in (("verify", "cli", "probem verify"), ("test", "test", "python -m pytest")):
        assert found[name] == (
            f'python3 -m venv .venv && .venv/bin/pip install -q -c constraints.txt -e ".[{extra}]" && .venv/bin/{last}'
        )


@pytest.mark.parametrize(
    "readme", ["", "```bash\npython3 -m venv a\n```\n", "```bash\npython3 -m venv a\nls\n```\n" * 2]
)
def test_readme_without_two_commands_is_refused(readme):
    commands = runpy.run_path(str(ROOT / ".ci" / "readme_command"))["commands"]
    with pytest.raises(SystemExit, match="expected two one-line bash blocks"):
        commands(readme)
