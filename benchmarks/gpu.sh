#!/bin/sh
# Run the tests of the GPU, then measure: benchmarks/gpu.sh [arguments of gpu.py]
# At most 8 minutes: 3.5 for the tests, 4.5 for the measurements. The status is that of what failed first.
cd "$(dirname "$0")/.." || exit 1
PYTHON=${PYTHON:-python3}
OMP_NUM_THREADS=${OMP_NUM_THREADS:-2} timeout -k 10 ${TEST_SECONDS:-200} "$PYTHON" -m pytest -m gpu -W default -v -p no:cacheprovider \
    --durations=5 ${TEST_ARGUMENTS:-} tests/test_gpu.py
tests=$?
timeout -k 10 ${PAGE_SECONDS:-270} "$PYTHON" benchmarks/gpu.py --seconds 200 "$@"
page=$?
[ $tests -eq 0 ] || exit $tests
exit $page
