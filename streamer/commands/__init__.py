"""What the commands of `streamer` do. `streamer.cli` says how they are called; nothing here parses arguments."""
