"""An asyncio graph for streams of sound and tokens."""
