"""The commands of ``audiolm``, one module a group."""
