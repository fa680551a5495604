#!/usr/bin/env bash
# The suite, the demo and the measurements on a machine with a GPU, in under ten minutes.
#
#   bench/gpu_check.sh
#
# It installs nothing and needs no network: it runs with $PYTHON, by default the python on PATH, on
# this checkout whether neuroglot is installed there or not. It goes on after a failure and ends
# with what passed, what failed and how long each took; the exit status is 0 if all passed.
#
#   PYTHON       the interpreter
#   PYTEST_ARGS  further arguments of pytest, such as "-k record"
#   LOGS         folder for the whole output of each step, by default a new temporary one
#   SUITE_LIMIT, DEMO_LIMIT, BENCH_LIMIT   seconds that each may take
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
    timeout --kill-after=10 "$limit" "$@" >"$log" 2>&1 </dev/null
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

workers=(-n auto)
if ! "$PYTHON" -c 'import xdist' 2>/dev/null; then
    echo "pytest-xdist is not installed: the suite runs in one process"
    workers=()
fi
# shellcheck disable=SC2086 # several arguments
step suite "${SUITE_LIMIT:-330}" "$PYTHON" -m pytest "${workers[@]}" -v --tb=short \
    -p no:cacheprovider ${PYTEST_ARGS:-}
step demo "${DEMO_LIMIT:-70}" "$PYTHON" -c 'from neuroglot.cli import main; main()' \
    demo --out "$LOGS/demo"
step bench "${BENCH_LIMIT:-100}" "$PYTHON" -c '
import sys
from bench import gpu, table
rows = gpu.rows()
table.print_table(rows)
missed = [row.what for row in rows if row.met is False]
sys.exit(f"bounds missed: {missed}" if missed else 0)
'

echo
echo "== what passed and what failed ($SECONDS s in all; logs in $LOGS)"
printf '%s\n' "${summary[@]}"
# pytest -v names them as they fail, so they are known also of a suite that was stopped.
grep -ohE '(FAILED|ERROR) tests/.*' "$LOGS/suite.log" | sed 's/ - .*//; s/ *$//; s/^/  /' | sort -u
exit "$failed"
