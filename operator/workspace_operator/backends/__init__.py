"""What runs workspaces: one protocol, one file per backend, and the door that is the only way to them."""
