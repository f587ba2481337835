"""Plugins that ship with the package, installed as `streamer_plugins`; they see only the public names of `streamer`."""
