"""`python -m streamer` is the program `streamer`."""

from streamer.cli import main

main()
