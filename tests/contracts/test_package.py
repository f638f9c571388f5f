"""What the package shows from outside: light imports, modules that stand alone, one version."""

import json
import pkgutil
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

import lumifield

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "numba", "numpy", "PIL", "scipy", "imageio_ffmpeg", "triton", "tensorboard")
LIGHT = (
    "lumifield.cli.main",
    "lumifield.data",
    "lumifield.localization",
    "lumifield.methods",
    "lumifield.optim",
    "lumifield.synthetic",
    "lumifield.training",
)
MODULES = sorted(module.name for module in pkgutil.walk_packages(lumifield.__path__, "lumifield."))
ENTRY = "lumifield.__main__"

LOADED = """
import contextlib, io, json, sys
sys.argv = ["lumifield", *json.loads(sys.argv[1])]
with contextlib.redirect_stdout(io.StringIO()) as said:
    try:
        from lumifield.cli.main import main
        if len(sys.argv) > 1:
            main()
    except SystemExit as left:
        assert left.code == 0, left.code
print(json.dumps([len(said.getvalue()), sorted(name.split(".")[0] for name in sys.modules)]))
"""

ALONE = """
import importlib, json, sys
failed = {}
for name in json.loads(sys.argv[1]):
    for loaded in [m for m in sys.modules if m.split(".")[0] == "lumifield"]:
        del sys.modules[loaded]
    try:
        importlib.import_module(name)
    except Exception as error:
        failed[name] = repr(error)
print(json.dumps(failed))
"""


def printed(code: str, argument: list[str]):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, json.dumps(argument)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("words", [[], ["--help"], ["train", "instant", "--help"], ["render", "--help"]], ids=str)
def test_help_is_light(words):
    said, modules = printed(LOADED, words)
    assert (said > 100) == bool(words)
    assert [name for name in HEAVY if name in modules] == []


def test_settings_are_light():
    code = "import importlib, json, sys; [importlib.import_module(name) for name in json.loads(sys.argv[1])]"
    modules = printed(code + "; print(json.dumps(sorted(sys.modules)))", list(LIGHT))
    assert [name for name in HEAVY if name in modules] == []


@pytest.mark.slow
def test_every_module_can_be_the_first_to_be_imported():
    there = [name for name in MODULES if name not in (ENTRY, "lumifield.kernels.triton_backend")]
    assert len(there) > 50
    # Operators can be registered once in a process: the kernels stay, and with them what they alone import.
    assert printed(ALONE.replace('== "lumifield"', '== "lumifield" and ".kernels" not in m'), there) == {}


def test_every_module_says_what_it_is():
    paths = [ROOT / "src" / Path(*name.split(".")) for name in MODULES]
    files = [path / "__init__.py" if path.is_dir() else path.with_suffix(".py") for path in paths]
    assert [str(file) for file in files if not file.read_text(encoding="utf-8").startswith('"""')] == []


def test_the_version_is_one():
    stated = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert lumifield.__version__ == stated == version("lumifield")
    assert stated in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_package_is_typed():
    assert (ROOT / "src" / "lumifield" / "py.typed").is_file()
