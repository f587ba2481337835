"""What computes the steps of a model's parts, torch (the reference) or something faster, behind one interface."""
