"""Frames over an MQTT broker: the client that heals itself, the exchange that a graph shares, and its two nodes."""
