"""What a user would pick instead, measured beside us: each in a virtual environment of its own, in turns with ours."""
