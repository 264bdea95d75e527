#!/bin/bash
# Makes .venv with the locked versions. The only thing it may need from the machine is Debian's python3-venv.
set -euo pipefail
cd "$(dirname "$0")/../.."

python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "Python 3.11 or newer is needed; $("$python" --version) is here. Set PYTHON to another one." >&2
    exit 1
}
if [ ! -x .venv/bin/python ]; then
    echo "setting up .venv"
    if ! "$python" -m venv .venv 2>/dev/null; then
        rm -rf .venv
        echo "python3-venv is missing: installing it with apt-get"
        apt-get -qq update && apt-get -qq install -y --no-install-recommends python3-venv >/dev/null
        "$python" -m venv .venv
    fi
fi
echo "installing locked versions (deploy/lock/dev.txt)"
.venv/bin/python -m pip install -q --disable-pip-version-check --require-hashes -r deploy/lock/dev.txt
.venv/bin/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
# `python3 -m reference_agent` works in this environment, as deploy/examples/class-process.yaml expects.
site=$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
printf '%s\n' "$PWD/deploy/agent" > "$site/reference_agent.pth"
