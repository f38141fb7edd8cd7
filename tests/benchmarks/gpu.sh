#!/usr/bin/env bash
# All of this project that asks for a CUDA GPU, in one call, or the parts that are named:
#
#     tests/benchmarks/gpu.sh [PART...]
#
#   tests       the tests that need one
#   step        bench_step.py against the 2020 tutorial's code, and `mmtrain bench`
#   tutorial    10 000 steps of the preset tutorial on the endless stream, in bf16
#   fixed       the same on 9 000 fixed sequences, until each was seen 140 times
#   composite   the paper's composite of 2 layers, cross-entropy, scheduled sampling, 20 minutes
#   wait        how long training waits for shards packed with zstd
#
# Logs and figures go to $OUT (gpu-results), runs with their checkpoints to $RUNS (runs/gpu), both
# seen from the root of the repository. A part that was cut short goes on where it was when it is
# called again, so all fits into calls of ten minutes: LIMIT is the seconds that each part may take,
# COMPOSITE_S those that composite trains in one call, for example
#
#     LIMIT=570 COMPOSITE_S=480 tests/benchmarks/gpu.sh composite
#
# PYTHON is the interpreter (python3). Exit 1 if a part failed or ran out of time, after all of them.
set -euo pipefail

here=$(realpath "$0")
cd "$(dirname "$here")/../.."
export PYTHON=${PYTHON:-python3} OUT=${OUT:-gpu-results} RUNS=${RUNS:-runs/gpu}
export COMPOSITE_S=${COMPOSITE_S:-1200} PYTHONUNBUFFERED=1 PYTHONPATH=.${PYTHONPATH:+:$PYTHONPATH}
order=(tests step tutorial fixed composite wait)
declare -A limits=([tests]=600 [step]=600 [tutorial]=900 [fixed]=900 [composite]=1500 [wait]=600)

part_tests() {
    "$PYTHON" -m pytest -m cuda
}

part_step() {
    local precision
    "$PYTHON" tests/benchmarks/bench_step.py --device cuda --out "$OUT/bench_step_cuda.md"
    for precision in fp32 tf32 bf16 fp16; do
        "$PYTHON" -m trainer bench --device cuda --set "precision=$precision"
        "$PYTHON" -m trainer bench --device cuda --set "precision=$precision" --json \
            >>"$OUT/bench.jsonl"
    done
    "$PYTHON" -m trainer bench --device cuda --set precision=bf16 --reference
}

# A checkpoint of 3 GB takes as long as hundreds of steps: they come with the last step, a signal,
# and with a look at val that is the best so far.
part_tutorial() {
    train tutorial live:srivastava --preset tutorial --set precision=bf16 --steps 10000 \
        --set eval_every=5000 --set checkpoint_every=10000
}

part_fixed() {
    local sequences=$RUNS/sequences-9000
    "$PYTHON" -m mmgen generate "$sequences" --train 9000 --val 1000 --test 1000
    # 70 batches of 128 are an epoch.
    train fixed "$sequences" --preset tutorial --set precision=bf16 --steps 9800 \
        --set eval_every=700 --set checkpoint_every=9800
}

part_composite() {
    local fields=(
        decoder_input=scheduled truth_steps=20000 init=xavier output_bias=mean loss_reduction=mean
        optimizer=adam lr=1e-3 schedule=cosine warmup=500 weight_decay=0 clip_norm=1
        batch_size=128 precision=bf16 eval_every=5000 checkpoint_every=1000000
    )
    local field sets=()
    for field in "${fields[@]}"; do
        sets+=(--set "$field")
    done
    mkdir -p "$RUNS"
    # The schedule ends when 20 minutes are over: the number of steps stays when the run goes on.
    if [[ ! -s $RUNS/composite.steps ]]; then
        "$PYTHON" -m trainer bench --device cuda --preset paper-2layer "${sets[@]}" --json |
            "$PYTHON" -c 'import json, sys; print(int(1140 / json.load(sys.stdin)["step_s"]["median"]))' \
                >"$RUNS/composite.steps.partial"
        mv "$RUNS/composite.steps.partial" "$RUNS/composite.steps"
    fi
    train composite live:srivastava --preset paper-2layer "${sets[@]}" \
        --steps "$(<"$RUNS/composite.steps")" --max-time "$COMPOSITE_S"
}

part_wait() {
    local sequences=$RUNS/sequences-zstd
    "$PYTHON" -m mmgen generate "$sequences" --codec zstd --train 50000 --val 1000 --test 1000
    train wait "$sequences" --preset tutorial --set precision=bf16 --steps 1000 \
        --set eval_every=1000 --set checkpoint_every=1000
}

# train RUN DATA OPTION...: train, or go on; then the figures and a picture of it.
train() {
    local run=$RUNS/$1 data=$2 start=$SECONDS
    shift
    "$PYTHON" -m trainer fit "$@" --run "$run" --device cuda --resume
    echo "fit: $((SECONDS - start)) s in this call"
    "$PYTHON" - "$run/timing.jsonl" <<'END'
import json, statistics, sys

lines = [json.loads(line) for line in open(sys.argv[1])][1:]  # the first one starts up
for name in ("sequences_per_s", "data_wait"):
    values = [line[name] for line in lines]
    print(f"{name}: median {statistics.median(values):g}, {min(values):g} to {max(values):g}")
END
    # The test split of every set here: that of srivastava, seed 0.
    "$PYTHON" -m trainer evaluate "$run" live:srivastava --device cuda
    "$PYTHON" -m trainer rollout "$run" "$data" --device cuda -o "$run/rollout.gif"
}

# What a part left in its run's folder, but for the checkpoints.
collect() {
    if [[ -d $RUNS/$1 ]]; then
        tar -czf "$OUT/$1.tar.gz" -C "$RUNS" --exclude=checkpoints "$1"
    fi
}

if [[ ${1-} == --inside ]]; then
    # The signal at the limit goes to all: wait for the checkpoint that `fit` then writes.
    trap 'echo "out of time" >&2' TERM
    "part_$2"
    exit
fi

(($#)) || set -- "${order[@]}"
for part in "$@"; do
    if [[ ! -v limits[$part] ]]; then
        echo "gpu.sh: there is no part $part; choose from: ${order[*]}" >&2
        exit 2
    fi
done
mkdir -p "$OUT"
"$PYTHON" - <<'END' | tee "$OUT/machine.txt"
import platform, sys
import torch

if not torch.cuda.is_available():
    sys.exit("gpu.sh: torch sees no CUDA device")
name, version = torch.cuda.get_device_name(), torch.version.cuda
print(f"{name}, torch {torch.__version__}, CUDA {version}, Python {platform.python_version()}")
END

failed=()
for part in "$@"; do
    SECONDS=0 code=0
    timeout --kill-after=60 "${LIMIT:-${limits[$part]}}" bash "$here" --inside "$part" 2>&1 |
        tee "$OUT/$part.log" || code=$?
    collect "$part"
    echo "$part: exit $code after $SECONDS s" | tee -a "$OUT/summary.txt"
    ((code == 0)) || failed+=("$part")
done
if ((${#failed[@]})); then
    echo "gpu.sh: not done: ${failed[*]}" >&2
    exit 1
fi
