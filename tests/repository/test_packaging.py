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
from ruamel.yaml import YAML

import probem
from probem.models import gmm

ROOT = Path(__file__).parents[2]
LINKED = ("models", "experiments", "configs")
# Beside the packages, the tests and .ci.
PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "CITATION.cff", "LICENSE")
SETTINGS = (
    "pyproject.toml",
    "constraints.txt",
    "build_backend.py",
    "MANIFEST.in",
    ".gitignore",
    ".pre-commit-config.yaml",
)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SETUPTOOLS = PROJECT["tool"]["setuptools"]

USE = """
import importlib.resources, probem, probem.cli, probem.models, probem.experiments.claims.datasets
folders = (importlib.resources.files(f"probem.{name}") for name in ("configs", "experiments"))
files = (folder / name for folder, name in zip(folders, ("verify.yaml", "report/report.css")))
print(probem.__version__, probem.fit.__name__, probem.models.gmm.__name__, *(file.is_file() for file in files))
"""
USED = [probem.__version__, "fit", "gmm", "True", "True"]


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


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="only a clone has links")
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


def test_version_is_said_once():
    assert PROJECT["project"]["dynamic"] == ["version"]
    assert SETUPTOOLS["dynamic"]["version"] == {"attr": "probem.__version__"}
    citation = YAML(typ="safe").load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == probem.__version__
    assert citation["license"] == PROJECT["project"]["license"]
    assert citation["authors"] == PROJECT["project"]["authors"]
    assert citation["keywords"] == PROJECT["project"]["keywords"]


def test_hooks_before_a_commit_are_those_of_ci():
    (repository,) = YAML(typ="safe").load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    stage = (ROOT / ".ci" / "run").read_text().partition('stage "lint')[2].partition("\n\n")[0]
    lines = [line.strip() for line in stage.splitlines()]
    wanted = [line for line in lines if line.startswith(".venv/bin/") and "pip" not in line]
    assert [hook["entry"] for hook in repository["hooks"]] == wanted
    assert len(wanted) == 4


def source_files() -> set[str]:
    """Every file that a source distribution needs, so that it can be built, tested and carried on."""
    files = {file for part in ("tests", ".ci") for file in (ROOT / part).rglob("*") if file.is_file()}
    names = {file.relative_to(ROOT).as_posix() for file in (*files, *tree().values())}
    return {name for name in names if "__pycache__" not in name} | {*PAGES, *SETTINGS}


@pytest.mark.slow
@pytest.mark.parametrize("through_sdist", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_wheel_from_another_directory(tmp_path, through_sdist):
    source = tmp_path / "source"
    anywhere, at_the_top = (
        shutil.ignore_patterns(*names)
        for names in (
            (".git", ".venv", ".*cache", "*.egg-info", "__pycache__"),
            (".hypothesis", "build", "dist", "runs"),
        )
    )

    def left_out(folder, names):
        return anywhere(folder, names) | (at_the_top(folder, names) if Path(folder) == ROOT else set())

    shutil.copytree(ROOT, source, symlinks=True, ignore=left_out)
    if through_sdist:
        python(f"from setuptools import build_meta; build_meta.build_sdist({str(tmp_path)!r})", cwd=source)
        shutil.unpack_archive(next(tmp_path.glob("probem-*.tar.gz")), tmp_path / "unpacked", filter="data")
        source = next((tmp_path / "unpacked").iterdir())
        assert {name for name in source_files() if not (source / name).is_file()} == set()
        assert python(USE, cwd=source).split() == USED
    python(f"from setuptools import build_meta; build_meta.build_wheel({str(tmp_path)!r})", cwd=source)
    site = tmp_path / "site"
    with zipfile.ZipFile(next(tmp_path.glob(f"probem-{probem.__version__}-*.whl"))) as wheel:
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
            file.writestr(f"probem/{name}", f"../{name}")
        for name in (*PAGES, *SETTINGS):
            file.write(ROOT / name, name)
    with zipfile.ZipFile(archive) as file:
        file.extractall(folder)
    return folder


@pytest.mark.slow
def test_a_zip_download(unzipped, tmp_path):
    # As it lies there, started inside, and from its wheel.
    assert python(USE, cwd=unzipped).split() == USED
    python(f"import build_backend; build_backend.build_wheel({str(tmp_path)!r})", cwd=unzipped)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        assert {name for name in wheel.namelist() if ".dist-info/" not in name} == set(tree())
        wheel.extractall(tmp_path / "site")
    assert python(USE, cwd=tmp_path, path=tmp_path / "site").split() == USED
    # In the folder above, where the download is called as the package is.
    assert python(USE, cwd=unzipped.parent, path=tmp_path / "site").split() == USED


@pytest.mark.slow
def test_an_editable_install(unzipped, tmp_path):
    python(f"import build_backend; build_backend.build_editable({str(tmp_path)!r})", cwd=unzipped)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        assert [name for name in wheel.namelist() if ".dist-info/" not in name] == ["probem/__init__.py"]
        wheel.extractall(tmp_path / "site")
    for folder in (tmp_path, unzipped.parent):
        assert python(USE, cwd=folder, path=tmp_path / "site").split() == USED
    code = "import probem, importlib.util as u; print(probem.__file__, *map(u.find_spec, ('models', 'experiments')))"
    found = python(code, cwd=unzipped.parent, path=tmp_path / "site").split()
    assert found == [str(unzipped / "probem" / "__init__.py"), "None", "None"]


def test_import_waits_for_nothing():
    code = "import probem, sys; print('jax' in sys.modules, 'numpyro' in sys.modules)"
    assert python(code, cwd=ROOT).split() == ["False", "False"]


def test_what_fits_adds_nothing_but_probem_to_numpyro():
    code = """
import sys
import numpyro
before = set(sys.modules)
from probem import *
print(*{name.partition(".")[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names))
"""
    # What jax and numpyro load late is theirs; anything else would be a dependency of the core, or slow to import.
    assert set(python(code, cwd=ROOT).split()) <= {
        "probem",
        "jax",
        "numpyro",
        "numpy",
        "jaxtyping",
        "lazy_loader",
        "wadler_lindig",
    }


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


def test_contributing_names_what_exists():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    (contract,) = (one for one in PROJECT["tool"]["importlinter"]["contracts"] if one["type"] == "layers")
    table = text.partition("| room |")[2].partition("\n\n")[0].splitlines()[2:]
    rooms = [re.findall("`([a-z_]+)`", row.split("|")[1]) for row in table]
    assert rooms == [layer.split(" : ") for layer in contract["layers"]]
    names = set(re.findall(r"`([\w/.]+\.(?:py|md|toml|yaml))`", text))
    known = {file.name for file in tree().values()}
    found = {name for name in names if (ROOT / name).exists() or (ROOT / "probem" / name).exists() or name in known}
    assert names - found == set()
    assert len(found) > 40
