"""`python -m lumifield`: the command line, for torchrun."""

import os

from lumifield.cli.main import main

main()

if int(os.environ.get("WORLD_SIZE", "1")) > 1:
    from lumifield.runtime.distributed import leave

    leave()
