"""How the operator is watched: metrics, logs, health. Every room may import this one; it imports none of them."""
