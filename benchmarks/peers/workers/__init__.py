"""What runs inside the environments: each module measures one peer, or ours in its place."""
