"""What the documentation shows exists: links, images, and commands that the command line accepts."""

import re
import shlex
from pathlib import Path

import pytest
import tyro

from lumifield.cli import main

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")], key=str)
FENCED = re.compile(r"^```\w*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^(?:torchrun .* -m |\.venv/bin/)?lumifield (.*)$")


def page_id(page):
    return str(page.relative_to(ROOT))


def links(page):
    """The relative addresses that a page leads to."""
    found = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    return [link for link in found if not link.startswith(("http:", "https:", "mailto:"))]


def anchors(page):
    """The addresses of a page's headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands(page):
    """The `lumifield` commands in a page's blocks; in the README also those within the text."""
    text = page.read_text(encoding="utf-8")
    lines = [line for block in FENCED.findall(text) for line in block.splitlines()]
    if page.name == "README.md":
        lines += re.findall(r"`([^`\n]+)`", text)
    found = (COMMAND.match(line) for line in lines)
    return [shlex.split(match[1], comments=True) for match in found if match]


def test_the_pages_are_found():
    assert {"README.md", "data.md", "from-the-originals.md"} <= {page.name for page in PAGES}


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
    config = (tyro.conf.CascadeSubcommandArgs,)
    if arguments[-1] == "--help":
        with pytest.raises(SystemExit, match="0"):
            tyro.cli(main.Command, prog="lumifield", args=arguments, config=config)
        return
    assert hasattr(tyro.cli(main.Command, prog="lumifield", args=arguments, config=config), "run")


def test_pages_outside_the_readme_print_commands_too():
    assert len(commands(ROOT / "README.md")) > 5
    assert len(commands(ROOT / "docs" / "data.md")) == 14
    assert len(commands(ROOT / "docs" / "reproducibility.md")) == 5
