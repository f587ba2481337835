"""The bundles that ship with the package: one folder each, found by its name."""
