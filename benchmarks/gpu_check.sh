#!/usr/bin/env bash
# Proves the GPU paths on a bare machine in one command: tests, a run, benchmarks, within 9 minutes: each step has a limit of its own.
# It wants Python 3.11 or newer with torch 2.11 or newer and torchvision, an NVIDIA driver, and nothing else: no network, no FFmpeg.
#
#   benchmarks/gpu_check.sh --gather     where there is a network: wheels and weights into .gpu_check/ (below 64 MiB, git ignores it)
#   benchmarks/gpu_check.sh              on the GPU machine, in a copy of the repository with .gpu_check/; figures and logs in $OUT
#   benchmarks/gpu_check.sh --rehearse   the same on a CPU and on small sizes: every line of this file runs
#
# --gather fetches, for Python $PYTHON_VERSION (3.12) on Linux x86_64, the versions in uv.lock of what torch's images lack, by
#   pip download --no-deps --only-binary=:all: --python-version 3.12 --platform manylinux_2_28_x86_64 … NAME==VERSION
# and packs them anew, since xz makes them a third smaller than a wheel's zip does.
# OUT: folder for what comes back (out/gpu_check); PYTHON: the interpreter that has torch (python3).
set -uo pipefail
cd "$(dirname "$0")/.."
carried=.gpu_check
python=${PYTHON:-python3}

# Not carried: what machines with torch have, decord's build without CUDA, polars (Ultralytics reads CSV files with it).
CARRIED="annotated-types av cffi cryptography defusedxml encord faster-coco-eval hypothesis iniconfig orjson packaging
  pluggy prometheus-client pycparser pydantic pydantic-core pydeprecate pygments pynvvideocodec pytest pytest-timeout sortedcontainers supervision
  torchcodec trackers typing-inspection ultralytics ultralytics-platform ultralytics-thop"

gather() {
  set -e
  local version=${PYTHON_VERSION:-3.12} platforms=() folders=() glibc wheels wheel weights
  IFS=: read -ra folders <<<"${PRELABEL_MODELS:-models}:$HOME/.cache/prelabel/models"
  weights=$(find "${folders[@]}" -name 'yolo11n*.pt' -print -quit 2>/dev/null || true)
  : "${weights:?found no yolo11n.pt in "${folders[*]}": run configs/coco.yaml once, which fetches it}"
  for glibc in 39 35 34 31 28 27 24 17; do platforms+=(--platform "manylinux_2_${glibc}_x86_64"); done
  wheels=$(mktemp -d)
  # shellcheck disable=SC2086
  uv run --no-sync python - $CARRIED <<'PY' >"$wheels/versions.txt"
import sys, tomllib

with open("uv.lock", "rb") as file:
    versions = {package["name"]: package["version"] for package in tomllib.load(file)["package"]}  # the last: newest Python
print("\n".join(f"{name}=={versions[name]}" for name in sys.argv[1:]))
PY
  uv run --no-sync --with pip python -m pip download --quiet --no-deps --only-binary=:all: --python-version "$version" \
    "${platforms[@]}" --platform manylinux2014_x86_64 --dest "$wheels" --requirement "$wheels/versions.txt"
  uv build --quiet --wheel --out-dir "$wheels"
  for wheel in "$wheels"/*.whl; do
    python3 -m zipfile --extract "$wheel" "$wheels/packages/$(basename "$wheel" | cut -d- -f1)"
  done
  rm -r "$wheels"/packages/prelabel/prelabel # only what names its readers and detectors; the code is the repository's
  # PyNvVideoCodec's wheel holds its samples, and each of FFmpeg's libraries three times. Only the middle name is loaded.
  rm -r "$wheels"/packages/pynvvideocodec/{samples,benchmarks,PyNvVideoCodec/libav*.so,PyNvVideoCodec/libav*.so.*.*}
  rm -rf "$carried" && mkdir "$carried"
  tar --create --xz --file "$carried/packages.tar.xz" --directory "$wheels" packages
  cp "$weights" "$carried/yolo11n.pt"
  rm -r "$wheels"
  du --summarize --human-readable --apparent-size "$carried"
}

seconds_left() { echo $((deadline - $(date +%s))); }

# step NAME SECONDS COMMAND…: runs it within its time and what is left of all time, keeps what it says, goes on whatever becomes of it.
step() {
  local name=$1 limit=$2 began code left
  shift 2
  left=$(seconds_left)
  limit=$((left < limit ? left : limit))
  began=$(date +%s)
  printf '\n== %s\n' "$name"
  timeout --kill-after=5 "$((limit > 1 ? limit : 1))" "$@" 2>&1 | tee "$out/$name.log"
  code=${PIPESTATUS[0]}
  printf '%s\t%s\t%s s\n' "$name" "$([[ $code == 0 ]] && echo passed || echo "FAILED ($code)")" "$(($(date +%s) - began))" >>"$out/summary.tsv"
}

# Prints the folders of those carried packages that this machine lacks, with a colon after each.
lacking() {
  "$python" -m tarfile --filter data --extract "$carried/packages.tar.xz" "$site" # bare machines have no xz
  "$python" - "$site"/packages/* <<'PY'
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

for folder in map(Path, sys.argv[1:]):
    try:
        print(f"{folder.name} {version(folder.name)}: installed here", file=sys.stderr)
    except PackageNotFoundError:
        print(folder, end=":")
PY
}

# torchcodec looks for FFmpeg by the names that its libraries have in a system; PyAV's wheel holds them under names of its own.
link_ffmpeg() {
  "$python" - "$site/ffmpeg" <<'PY'
import ctypes.util, re, sys
from importlib.util import find_spec
from pathlib import Path

links = Path(sys.argv[1])
links.mkdir(parents=True, exist_ok=True)
if ctypes.util.find_library("avcodec"):
    sys.exit()
for library in (Path(find_spec("av").origin).parent.parent / "av.libs").iterdir():
    found = re.fullmatch(r"(lib(?:av|sw)\w+?)-\w+(\.so\.\d+)[\d.]*", library.name)
    if found and not (links / "".join(found.groups())).exists():
        (links / "".join(found.groups())).symlink_to(library)
print(f"FFmpeg: PyAV's, {len(list(links.iterdir()))} libraries")
PY
}

describe_machine() {
  nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader || echo "no nvidia-smi"
  "$python" -c 'import platform, torch, torchvision; print(platform.python_version(), torch.__version__, torchvision.__version__)'
  nproc
}

test_cuda_paths() {
  local modules=()
  mapfile -t modules < <(grep --recursive --files-with-matches 'mark.needs_cuda' tests --include='test_*.py')
  "$python" -m pytest -q -m needs_cuda -p no:cacheprovider --junitxml "$out/tests.xml" "${modules[@]}"
}

# benchmark MODULE OPTION…: its last line is JSON, and goes into a file of its own; gpu writes that file as it goes, too.
benchmark() {
  local module=$1
  shift
  "$python" -m "benchmarks.$module" "$@" | tee "$out/$module.txt"
  [[ ${PIPESTATUS[0]} == 0 ]] || return 1
  tail -n 1 "$out/$module.txt" >"$out/$module.json"
  "$python" -m json.tool "$out/$module.json" >/dev/null
}

check() {
  deadline=$(($(date +%s) + 530))
  out=$(mkdir -p "${OUT:-out/gpu_check}" && cd "${OUT:-out/gpu_check}" && pwd)
  site=$(mktemp -d)
  trap 'rm -rf "$site"' EXIT
  : >"$out/summary.tsv"
  PYTHONPATH=$(lacking)
  LD_LIBRARY_PATH=$site/ffmpeg:${LD_LIBRARY_PATH:-}
  PRELABEL_MODELS=$PWD/models:$PWD/$carried:${PRELABEL_MODELS:-}
  export PYTHONPATH LD_LIBRARY_PATH PRELABEL_MODELS PYTHONUNBUFFERED=1 python out site
  export -f link_ffmpeg describe_machine test_cuda_paths benchmark

  step machine 40 bash -c describe_machine
  step ffmpeg 10 bash -c link_ffmpeg
  step doctor 40 "$python" -m prelabel doctor
  step tests 100 bash -c test_cuda_paths
  rm -rf "$out/demo"
  step run 40 "$python" -m prelabel run configs/demo.yaml --set detector.weights=demo_shapes --set "source.output=$out/demo" --set "reader.frame_ranges=[[0, $((demo_frames - 1))]]"
  step gpu 250 bash -c "benchmark gpu --weights yolo11n --seconds 170 --json $out/gpu.json --picture $out/gpu.svg $stages"
  step pipeline 40 bash -c "benchmark pipeline --clip $out/demo/demo.mp4 --weights yolo11n --no-peers $size"
  printf '\n'
  cat "$out/summary.tsv"
  ! grep -q FAILED "$out/summary.tsv"
}

demo_frames=150
size="--rounds 3"
stages="--rounds 3 --frames 600"
case ${1:-} in
  --gather) gather ;;
  --rehearse)
    demo_frames=48
    size="--rounds 1 --frames 16"
    stages="--rounds 1 --frames 64 --sizes 180 --videos 1 --batches 4 --no-peers"
    check
    ;;
  "")
    export FAIL_WITHOUT_CUDA=1
    check
    ;;
  *)
    sed -n '2,/^set/p' "$0" | grep '^#' >&2
    exit 2
    ;;
esac
