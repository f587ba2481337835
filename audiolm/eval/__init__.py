"""Measures of what tokens and sound are worth, on held-out sound. Each imports what it needs when it is used."""
