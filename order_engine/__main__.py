"""`python -m order_engine` is the command line."""

from order_engine.cli import main

main()
