"""Speed, measured and printed, never asserted: each module has a `main` that prints one JSON line a figure."""
