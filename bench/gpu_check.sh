#!/usr/bin/env bash
# The suite, the demo and the measurements on a machine with a GPU, in under ten minutes. What tells
# most about the GPU comes first, and the suite gets what time is left.
#
#   bench/gpu_check.sh
#
# It installs nothing and needs no network: it runs with $PYTHON, by default the python on PATH, on
# this checkout whether neuroglot is installed there or not. It goes on after a failure and ends
# with what passed, what failed and how long each took; the exit status is 0 if all passed.
#
#   PYTHON       the interpreter
#   PYTEST_ARGS  further arguments of pytest, such as "-k record"
#   WORKERS      processes that share the tests, by default one for each core
#   LOGS         folder for the whole output of each step, by default a new temporary one
#   LIMIT        seconds for everything
#   DEVICES_LIMIT, DEMO_LIMIT, BENCH_LIMIT   seconds that each of these may take of them
set -uo pipefail
cd "$(dirname "$0")/.." || exit 2

PYTHON=${PYTHON:-python}
LOGS=${LOGS:-$(mktemp -d)}
mkdir -p "$LOGS" || exit 2
LOGS=$(cd "$LOGS" && pwd)
export PYTHONPATH="$PWD/src:$PWD${PYTHONPATH:+:$PYTHONPATH}"
export HF_HUB_OFFLINE=1 TQDM_DISABLE=1 PYTHONUNBUFFERED=1

summary=()
failed=0

# step NAME SECONDS COMMAND...: runs it within its time limit, and notes how it went.
step() {
    local name=$1 limit=$2 log="$LOGS/$1.log" began=$SECONDS status outcome
    shift 2
    echo "== $name (at most $limit s)"
    # As Ctrl-C does it: pytest then shows what had failed until then. In the background the shell
    # has that signal ignored.
    timeout --signal=INT --kill-after=15 "$limit" env --default-signal=INT "$@" >"$log" 2>&1 </dev/null
    status=$?
    tail -n 30 "$log"
    case $status in
        0) outcome=passed ;;
        124 | 137) outcome="FAILED: stopped after $limit s" ;;
        *) outcome="FAILED with status $status" ;;
    esac
    [ "$status" -eq 0 ] || failed=1
    summary+=("$(printf '%-6s %4d s  %s' "$name" $((SECONDS - began)) "$outcome")")
}

# A run without a GPU is no check of one, however well it goes.
step gpu 30 "$PYTHON" -c '
import sys, torch
print(f"Python {sys.version.split()[0]}, torch {torch.__version__}")
torch.cuda.is_available() or sys.exit("torch finds no GPU here")
print(torch.cuda.get_device_name())
'

workers=(-n "${WORKERS:-auto}")
if ! "$PYTHON" -c 'import xdist' 2>/dev/null; then
    echo "pytest-xdist is not installed: the tests run in one process"
    workers=()
fi
# shellcheck disable=SC2206 # several arguments
tests=("$PYTHON" -m pytest "${workers[@]}" -v --tb=short -p no:cacheprovider ${PYTEST_ARGS:-})

step devices "${DEVICES_LIMIT:-100}" "${tests[@]}" tests/test_devices.py
step demo "${DEMO_LIMIT:-70}" "$PYTHON" -c 'from neuroglot.cli.app import main; main()' \
    demo --out "$LOGS/demo"
step bench "${BENCH_LIMIT:-100}" "$PYTHON" -c '
import sys
from bench import gpu, table
rows = gpu.rows()
table.print_table(rows)
missed = [row.what for row in rows if row.met is False]
sys.exit(f"bounds missed: {missed}" if missed else 0)
'
left=$((${LIMIT:-560} - SECONDS))
step suite $((left > 1 ? left : 1)) "${tests[@]}" --ignore=tests/test_devices.py

echo
echo "== what passed and what failed ($SECONDS s in all; logs in $LOGS)"
printf '%s\n' "${summary[@]}"
# pytest -v names them as they fail, so they are known also of a suite that was stopped.
grep -ohE '(FAILED|ERROR) tests/.*' "$LOGS"/{devices,suite}.log |
    sed 's/ - .*//; s/ *$//; s/^/  /' | sort -u
exit "$failed"
