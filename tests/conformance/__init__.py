"""The suite that every backend passes, written once against backends/protocol.py and run once per backend.

pytest tests/conformance                                      every backend
pytest tests/conformance --backend=process                    one of them (repeatable)
pytest tests/conformance --backend=mypackage.rigs:MyRig       your own: subclass tests.conformance.rigs.Rig
"""
