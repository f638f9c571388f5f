"""`python -m lumifield`: the command line, for torchrun."""

from lumifield.cli.main import main

main()
