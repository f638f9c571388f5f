"""Links and images of the documentation exist, and the command line accepts its commands and options."""

import contextlib
import io
import re
import shlex
from pathlib import Path

import pytest
import tyro

import lumifield
from lumifield.cli import main

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")], key=str)
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
OPTION = re.compile(r"(?<![\w-])--[a-z][\w.-]*\w")
OTHER_PROGRAM = re.compile(r"\b(torchrun|python|make|chromium) ")
CASCADE = (tyro.conf.CascadeSubcommandArgs,)
SCENES = ("still-life", "multiscale", "tourists", "perturbed", "object-category", "object-captures", "flow-pairs")
METHODS = ("instant", "nerf", "mip-nerf", "nerf-w", "simple-nerf", "nlr")
COMMAND = re.compile(r"^(?:torchrun .* -m |\.venv/bin/)?lumifield (.*)$")


def page_id(page):
    return str(page.relative_to(ROOT))


def links(page):
    """The relative links of a page."""
    found = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    return [link for link in found if not link.startswith(("http:", "https:", "mailto:"))]


def anchors(page):
    """The anchors of the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands(page):
    """The `lumifield` commands in the shell blocks of a page; in the README also those in the text."""
    text = page.read_text(encoding="utf-8")
    blocks = [block for language, block in FENCED.findall(text) if language in ("", "bash")]
    lines = [line for block in blocks for line in block.splitlines()]
    if page.name == "README.md":
        lines += re.findall(r"`([^`\n]+)`", text)
    found = (COMMAND.match(line) for line in lines)
    return [shlex.split(match[1], comments=True) for match in found if match]


def test_the_pages_are_found():
    assert {"README.md", "data.md", "mip-nerf.md"} <= {page.name for page in PAGES}


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_lead_somewhere(page):
    for link in links(page):
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), f"{page_id(page)} leads to {link}"
        assert not anchor or anchor in anchors(target), f"{page_id(page)} leads to {link}"


@pytest.mark.parametrize(
    "arguments", [pytest.param(a, id=f"{p.name}: {' '.join(a)}") for p in PAGES for a in commands(p)]
)
def test_printed_commands_are_accepted(arguments, capsys):
    if arguments[-1] == "--help":
        with pytest.raises(SystemExit, match="0"):
            tyro.cli(main.Command, prog="lumifield", args=arguments, config=CASCADE)
        return
    assert hasattr(tyro.cli(main.Command, prog="lumifield", args=arguments, config=CASCADE), "run")


def help_text(command):
    output = io.StringIO()
    with contextlib.redirect_stdout(output), pytest.raises(SystemExit):
        tyro.cli(main.Command, prog="lumifield", args=[*command.split(), "--help"], config=CASCADE)
    return output.getvalue()


@pytest.fixture(scope="module")
def known_options():
    """Every option of every command, with its negation."""
    commands = ["eval", "render", "view", "info", "download", "pretrain-features", "bench cpu"]
    commands += [f"{train} {method}" for train in ("train", "meta-train") for method in METHODS]
    commands += [f"export {kind}" for kind in ("mesh", "points", "web", "volume", "cameras", "weights")]
    commands += [f"localize {step}" for step in ("density", "select", "synthesize", "pose", "baseline")]
    commands += [f"synthesize-data {kind}" for kind in (*SCENES, "converted")]
    options = {option for command in commands for option in OPTION.findall(help_text(command))}
    return options | {f"--no-{option[2:]}" for option in options}


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_named_options_exist(page, known_options):
    """Options in code spans; tables of the migration pages name those of other programs, too."""
    lines = page.read_text(encoding="utf-8").splitlines()
    if page.name == "CHANGELOG.md":
        return
    if page.parent.name == "migration":
        lines = [line for line in lines if not line.startswith("|")]
    named = {option for line in lines if not OTHER_PROGRAM.search(line) for option in OPTION.findall(line)}
    assert named <= known_options, sorted(named - known_options)


@pytest.mark.parametrize("page", ["README.md", "docs/quickstart.md", "docs/data.md", "docs/reproducibility.md"])
def test_commands_are_found(page):
    assert commands(ROOT / page)


def test_the_api_page_lists_every_public_name():
    listed = re.findall(r"^::: lumifield\.(\w+)$", (ROOT / "docs" / "api.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(listed) == sorted(set(lumifield.__all__) - {"__version__"})
