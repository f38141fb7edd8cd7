"""Let `python -m trainer` run the command line."""

from trainer.cli import main

main(prog_name="mmtrain")
