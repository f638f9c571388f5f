"""The command line: parses the arguments and runs the command. torch is imported only when a command runs."""

from __future__ import annotations

import logging
import os
import sys

import tyro
from tyro.conf import CascadeSubcommandArgs

import lumifield
from lumifield.cli.commands import Command
from lumifield.cli.config_file import default_from_config
from lumifield.environment import configure_process, validate_environment
from lumifield.errors import DataError
from lumifield.training import TrainingError


def main(arguments: list[str] | None = None) -> None:
    """Runs a command; a user's mistake ends it with one sentence and exit status 2."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments == ["--version"]:
        print(f"lumifield {lumifield.__version__}")
        return
    configure_process()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        validate_environment()
        default = default_from_config(arguments)
        command = tyro.cli(Command, prog="lumifield", args=arguments, default=default, config=(CascadeSubcommandArgs,))
        command.run()
    except DataError as error:
        print(f"lumifield: {error}", file=sys.stderr)
        sys.exit(2)
    except TrainingError as error:
        print(f"lumifield: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("lumifield: interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # the reader of a pipe has closed it, for example `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that flushing at exit does not fail again
        sys.exit(141)
