"""What the commands of `streamer` do. `streamer.cli` says how they are called; only `options` and `service_cli` here do, too."""
