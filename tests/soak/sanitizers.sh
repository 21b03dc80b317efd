#!/usr/bin/env bash
# Build the native library with AddressSanitizer and UBSan, and run its tests on it.
# Usage: tests/soak/sanitizers.sh [PYTHON]
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${1:-.venv/bin/python}
build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT

flags="-fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -g -O1"
cmake -S . -B "$build" -DCMAKE_BUILD_TYPE=None -DCMAKE_CXX_COMPILER=g++ \
  -DCMAKE_CXX_FLAGS="$flags" >/dev/null
cmake --build "$build" --parallel >/dev/null

# Python itself is not built with the sanitizers, so their libraries are loaded before it; what
# Python leaves allocated when it ends is no leak of the kernels.
export LD_PRELOAD="$(g++ -print-file-name=libasan.so) $(g++ -print-file-name=libubsan.so)"
export ASAN_OPTIONS=detect_leaks=0:detect_odr_violation=0 UBSAN_OPTIONS=print_stacktrace=1
export LORD_FAST_SANITIZED="$build/liblord_fast_kernels.so"
exec_tests() { "$python" -m pytest -q -p no:cacheprovider -p tests.soak.sanitized "$@"; }
exec_tests tests/test_latent_native.py tests/test_adain_native.py
