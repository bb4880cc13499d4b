#!/usr/bin/env bash
# Runs the Python tests on each of the given interpreters, on asyncio and on uvloop (`make matrix`).
# Each has an environment of its own in .matrix; one compiled core (abi3) serves them all. LOOPS and WORKERS can be set.
set -euo pipefail
cd "$(dirname "$0")/.."
failed=0
for python in "$@"; do
  version=$("$python" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])')
  env=.matrix/$version
  [ -x "$env/bin/python" ] || "$python" -m venv "$env"
  "$env/bin/python" scripts/requirements.py cli serve uvloop dev > "$env/requirements.txt"
  "$env/bin/python" -m pip install --quiet --disable-pip-version-check -r "$env/requirements.txt"
  # Programs that the tests start elsewhere find the package here.
  pwd > "$("$env/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/fastcrew_async.pth"
  for loop in ${LOOPS:-asyncio uvloop}; do
    log=$env/$loop.log
    FASTCREW_ASYNC_TEST_LOOP=$loop "$env/bin/python" -m pytest -q -p no:cacheprovider -n "${WORKERS:-2}" > "$log" 2>&1 || failed=1
    echo "Python $version, $loop: $(tail -n 1 "$log")"
    grep -E '^(FAILED|ERROR)' "$log" || true
  done
done
exit $failed
