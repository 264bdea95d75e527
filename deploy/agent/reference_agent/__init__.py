"""A small A2A agent that keeps ../CONTRACT.md: the demo's workload and the counterpart of the tests."""
