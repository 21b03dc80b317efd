#!/usr/bin/env bash
# On a machine with an A100 or H100, in a checkout: tests on the GPU, kernels against the roofline,
# the ladder of steps over TF32 eager, 300 steps of training, and one report of all of it.
#
#   bench/gpu.sh [REPORT_FOLDER]     about half an hour; the report is REPORT_FOLDER/report.md
#
# PYTHON=... names the interpreter that has lord-fast with its dev and triton extras, and a CUDA
# build of torch. Where there is no GPU the same runs on the CPU, and the report says so.
# LORD_FAST_BENCH_BATCH, LORD_FAST_BENCH_STEPS: images a step (64), steps of training (300).
# LORD_FAST_BENCH_FLAGS: more flags of bench step and bench train, such as "--size 32".
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

section() { # TITLE FILE COMMAND...: run it, keep all it prints, and say in the report how it went
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
  tests/test_latent_cuda.py tests/test_step_cuda.py tests/test_dali.py
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
echo "$report"
exit "$failed"
