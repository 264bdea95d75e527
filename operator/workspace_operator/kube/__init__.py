"""The Kubernetes API: a small typed client, identities of workspaces, Events, and leadership by Lease."""
