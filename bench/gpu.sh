#!/usr/bin/env bash
# Runs all tests and benchmarks that need a GPU and writes REPORT_FOLDER/report.md. Run it in a
# checkout on a machine with an A100 or H100. It takes about half an hour.
#
#   bench/gpu.sh [REPORT_FOLDER]
#
# It runs the GPU tests, compares the kernels with the roofline, compares all forms of a step with
# the published step, times the saves, trains 300 steps and compares the bits of several processes
# (two on one GPU with gloo, and one a GPU with NCCL if there are several). Kernels are timed by
# events from a CUDA graph with a cold L2 cache, steps by events without waiting between them.
# Without a GPU everything runs on the CPU, and the report
# says so. These environment variables change it:
#
#   PYTHON                  interpreter with lord-fast[dev,triton] and a CUDA build of torch
#   LORD_FAST_BENCH_BATCH   batch size (64)
#   LORD_FAST_BENCH_STEPS   steps of training (300)
#   LORD_FAST_BENCH_FLAGS   more flags for bench step and bench train, such as "--size 32"
set -uo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python}
out=${1:-gpu-report}
batch=${LORD_FAST_BENCH_BATCH:-64}
steps=${LORD_FAST_BENCH_STEPS:-300}
read -ra flags <<<"${LORD_FAST_BENCH_FLAGS:-}"
mkdir -p "$out"
report=$out/report.md
failed=0

# section TITLE FILE COMMAND... runs a command, saves its output in FILE and adds it to the report.
section() {
  local title=$1 file=$out/$2 rc=0
  shift 2
  echo "== $title"
  "$@" >"$file" 2>&1 || rc=$?
  [ "$rc" = 0 ] || failed=1
  {
    echo "## $title"
    echo
    echo "\`$*\`: exit code $rc"
    echo
    echo '```text'
    tail -n 80 "$file"
    echo '```'
    echo
  } >>"$report"
}

lord_fast() { "$python" -m lord_fast "$@"; }

echo "# lord-fast on $(uname -n), $(date -u +%F)" >"$report"
echo >>"$report"
section "Machine" doctor.txt lord_fast doctor
command -v nvidia-smi >/dev/null && section "GPU" nvidia-smi.txt nvidia-smi
section "Tests on the GPU" tests.txt "$python" -m pytest -q -rs \
  tests/test_latent_cuda.py tests/test_adain_cuda.py tests/test_step_cuda.py tests/test_dali.py
section "Kernels against the roofline" roofline.txt "$python" bench/roofline.py
section "Kernels against other optimizers" latent.txt \
  lord_fast bench latent --json "$out/latent.json" --plot "$out/latent.png"
section "Steps" step.txt lord_fast bench step --batch-size "$batch" "${flags[@]}" \
  --json "$out/step.json" --plot "$out/step.png"
for precision in float32 bf16; do
  section "Training beside the published one, $precision" "train-$precision.txt" \
    lord_fast bench train --precision "$precision" --batch-size "$batch" --steps "$steps" \
    "${flags[@]}" --json "$out/train-$precision.json"
done
section "Several processes, equal bits" processes.txt "$python" bench/processes.py
section "Locations of the content table" tables.txt "$python" bench/tables.py --device cuda
echo "$report"
exit "$failed"
