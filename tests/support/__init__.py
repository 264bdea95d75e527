"""What tests share: a running operator, and a fleet to talk to in sentences."""
