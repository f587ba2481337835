"""What the commands of `streamer` do. `streamer.cli` says how they are called.

Only `options` and `service_cli` say so, too; nothing else here parses arguments.
"""
