"""`python -m lumifield`: the command line, for torchrun."""

from lumifield.cli import main

main()
