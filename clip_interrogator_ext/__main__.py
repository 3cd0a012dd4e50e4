"""Run the command line: `python -m clip_interrogator_ext`."""

import sys

from clip_interrogator_ext.faces.cli import main

sys.exit(main())
