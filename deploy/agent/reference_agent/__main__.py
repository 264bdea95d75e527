"""Starts the agent: `python -m reference_agent`. Exits 0 stopped, 2 bad settings, 3 crashed, 4 no port."""

from __future__ import annotations

import os
import signal
import sys


def main() -> int:
    # Before every other import: the SDK takes half a second, and until there is a handler, process 1 of a
    # container ignores SIGTERM.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    import logging

    from reference_agent.faults import CRASH_CODE, FaultError, Faults
    from reference_agent.settings import Settings, SettingsError

    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    # httpx tells every request, uvicorn and the SDK every start; neither is news here.
    for chatty in ("httpx", "httpcore", "uvicorn.error", "a2a"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    log = logging.getLogger("reference_agent")
    try:
        settings = Settings.from_environ(os.environ)
        faults = Faults(settings.faults)
    except (SettingsError, FaultError) as error:
        log.error("%s", error)
        return 2
    if "crash-on-start" in faults:
        log.error("Crashing because the fault 'crash-on-start' is on.")
        return CRASH_CODE

    from reference_agent.app import run

    return run(settings)


if __name__ == "__main__":
    sys.exit(main())
