"""What a person may ask of the package besides running the operator: one module per command."""
