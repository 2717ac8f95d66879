#!/usr/bin/env bash
# The whole audit at full size on a GPU: ResNet-18, 50,000 synthetic CIFAR-shaped images, 51 queries; how far each phase is from the
# operations that it must cost at the card's measured f32 rate; the kernels one by one. kronfluence beside it where torch with CUDA is
# there.
#
#   scripts/bench_gpu.sh [--images N] [--batch B] [--network resnet18|resnet9|small] [--backends "vulkan cuda"] [--no-kernels]
#
# Output: one table per backend, for BENCHMARKS.md. Factors are fitted on 2,048 images: what a user who collected them in training
# never does, and what the audit's own eigenvalue pass takes. The row `audit` is a whole audit of one suspect by the default rule.
set -euo pipefail
cd "$(dirname "$0")/.."

images=50000 batch=256 network=resnet18 backends="vulkan cuda" kernels=yes
while [ $# -gt 0 ]; do
  case "$1" in
    --images) images="$2"; shift ;;
    --batch) batch="$2"; shift ;;
    --network) network="$2"; shift ;;
    --backends) backends="$2"; shift ;;
    --no-kernels) kernels=no ;;
    *) echo "unknown option $1" >&2; exit 2 ;;
  esac
  shift
done
fit=$((images < 2048 ? images : 2048))
peers="${DELTA_INFLUENCE_SHARED:-../shared}/peers"

if command -v nvidia-smi >/dev/null; then nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader; fi
for backend in $backends; do
  printf '\n== %s: %s, %s images, batch %s\n' "$backend" "$network" "$images" "$batch"
  if ! cargo bench -q --features "$backend" --bench peer -- "$images" "$network" --batch "$batch" --queries 1,51 \
    --fit-images "$fit" --device gpu --floor --audit; then
    echo "$backend: failed" >&2
    continue
  fi
  # The same with self-influence, as the audit's default rule takes it.
  cargo bench -q --features "$backend" --bench peer -- "$images" "$network" --batch "$batch" --queries 51 \
    --fit-images "$fit" --device gpu --floor --self-influence || echo "$backend: failed with self-influence" >&2
  if [ "$kernels" = yes ]; then
    DELTA_INFLUENCE_BENCH_DEVICE=gpu cargo bench -q --features "$backend" --bench kernels || echo "$backend: kernels failed" >&2
  fi
done

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
