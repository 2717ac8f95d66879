#!/usr/bin/env bash
# The whole audit at full size on a GPU: ResNet-18, 50,000 synthetic CIFAR-shaped images, 51 queries; how far each phase is from the
# operations that it must cost at the card's measured f32 rate; what collecting costs a training; the kernels one by one. kronfluence
# beside it where torch with CUDA is there.
#
#   scripts/bench_gpu.sh [--images N] [--batch B] [--network resnet18|resnet9|small] [--backends "vulkan cuda"] [--no-kernels]
#                        [--no-collecting] [--no-peer] [--binaries DIR]
#
# Output: one table per backend, for BENCHMARKS.md. Factors are fitted on 2,048 images: what a user who collected them in training
# never does, and what the audit's own eigenvalue pass takes. The row `audit` is a whole audit of one suspect by the default rule.
# --binaries: benches that were built elsewhere (`peer`, `collecting`, `kernels` in DIR), for machines without cargo.
# burn tunes its kernels when it first meets a shape: give the first run on a card an hour or more. What it finds is kept in target/environment.
set -euo pipefail
cd "$(dirname "$0")/.."

images=50000 batch=256 network=resnet18 backends="vulkan cuda" kernels=yes collecting=yes peer=yes binaries=
while [ $# -gt 0 ]; do
  case "$1" in
    --images) images="$2"; shift ;;
    --batch) batch="$2"; shift ;;
    --network) network="$2"; shift ;;
    --backends) backends="$2"; shift ;;
    --binaries) binaries="$(realpath "$2")"; shift ;;
    --no-kernels) kernels=no ;;
    --no-collecting) collecting=no ;;
    --no-peer) peer=no ;;
    *) echo "unknown option $1" >&2; exit 2 ;;
  esac
  shift
done
fit=$((images < 2048 ? images : 2048))
peers="${DELTA_INFLUENCE_SHARED:-../shared}/peers"

# One build has all backends; `--device` chooses.
bench() {
  local name="$1"
  shift
  if [ -n "$binaries" ]; then "$binaries/$name" --bench "$@"; else cargo bench -q --features "${backends// /,}" --bench "$name" -- "$@"; fi
}

if command -v nvidia-smi >/dev/null; then nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader; fi
for backend in $backends; do
  printf '\n== %s: %s, %s images, batch %s\n' "$backend" "$network" "$images" "$batch"
  if ! bench peer "$images" "$network" --batch "$batch" --queries 1,51 --fit-images "$fit" --device "$backend" --floor --audit; then
    echo "$backend: failed" >&2
    continue
  fi
  # The same with self-influence, as the audit's default rule takes it.
  bench peer "$images" "$network" --batch "$batch" --queries 51 --fit-images "$fit" --device "$backend" --floor --self-influence ||
    echo "$backend: failed with self-influence" >&2
  if [ "$collecting" = yes ]; then
    printf '\n== %s: collecting\n' "$backend"
    bench collecting --images 10000 --device "$backend" || echo "$backend: collecting failed" >&2
  fi
  if [ "$kernels" = yes ]; then
    printf '\n== %s: kernels\n' "$backend"
    DELTA_INFLUENCE_BENCH_DEVICE="$backend" bench kernels || echo "$backend: kernels failed" >&2
  fi
done

if [ "$peer" = no ]; then exit; fi
python="${BENCH_VENV:-$HOME/.cache/bench-venv}/bin/python"
[ -x "$python" ] || python=python3
if "$python" -c 'import torch, kronfluence, sys; sys.exit(not torch.cuda.is_available())' 2>/dev/null; then
  printf '\n== kronfluence on the same card\n'
  script="$(mktemp --suffix .py)"
  trap 'rm -f "$script"' EXIT
  # Its script is for CPUs: let it take the card, and leave out the warm-up on CPU tensors.
  sed -e 's/cpu=True/cpu=False/' -e '/# warm-up$/d' "$peers/kronfluence_bench.py" > "$script"
  "$python" "$script" "$images" "$network" --batch "$batch" --queries 1,51 || echo "kronfluence failed" >&2
else
  echo "no torch with CUDA and kronfluence here: ours alone"
fi
