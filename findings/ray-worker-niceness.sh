#!/usr/bin/env bash
# What:    Ray runs its workers at niceness 15, also on a machine that it has for itself. Beside any ordinary process,
#          decoding and inference in an actor get a small share of a core.
# Expect:  the niceness of the process that called ray.init, as for processes of multiprocessing.
# Version: ray 2.60.0 (PyPI), Python 3.11, Linux
# Source:  run by this script; RAY_worker_niceness=0 changes it
# Exits 0 while this is so, 1 once it has changed.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT; cd "$work"
python3 -m venv venv && venv/bin/pip install --quiet ray==2.60.0
cat > niceness.py <<'PY'
import os

import ray

ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")


@ray.remote
def niceness():
    return os.nice(0)


print(os.nice(0), ray.get(niceness.remote()))
PY
read -r driver default < <(venv/bin/python niceness.py 2>/dev/null)
read -r _ asked < <(RAY_worker_niceness=0 venv/bin/python niceness.py 2>/dev/null)
echo "ray 2.60.0"
echo "expected: a worker's niceness is that of the driver, $driver"
echo "seen: $default; with RAY_worker_niceness=0: $asked"
[[ "$default" == 15 && "$asked" == 0 ]]
