"""What talks to agents: A2A over HTTP with the official SDK."""
