"""The page and its server: visitors, their sessions, what they may do."""
