"""Let `python -m mmgen` run the command line."""

from mmgen.cli import main

main(prog_name="mmgen")
