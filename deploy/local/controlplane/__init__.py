"""A Kubernetes control plane and a Docker engine as plain processes on one machine.

Used by the demo, by `make cluster` and by the tests; the operator itself never imports it.
"""
