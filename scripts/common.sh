# Sourced by the other scripts: where things are, and how to say what is going on.
# shellcheck shell=bash disable=SC2034

set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=$root/.venv
cd "$root"

if [ -t 1 ]; then bold=$'\033[1m' plain=$'\033[0m'; else bold='' plain=''; fi
say() { printf '%s==> %s%s\n' "$bold" "$*" "$plain"; }
die() {
  printf '%s: %s\n' "${0##*/}" "$*" >&2
  exit 1
}

# ccache and pip want a home; a container or a CI account may have none that can be written.
if [ -z "${HOME:-}" ] || [ ! -w "$HOME" ]; then
  export HOME=$root/.cache/home
  mkdir -p "$HOME"
fi
# Two compilers of LibTorch headers need about 2 GiB each.
jobs=${BUILD_JOBS:-$(nproc)}

# The folder with LibTorch's include/ and lib/ that the user named, or nothing.
# As cmake/torch.cmake: $TORCH_DIR, then what stands in CMAKE_PREFIX_PATH.
torch_of_user() {
  if [ -n "${TORCH_DIR:-}" ]; then
    [ -e "$TORCH_DIR/include/torch/script.h" ] ||
      die "TORCH_DIR=$TORCH_DIR holds no include/torch/script.h: point it at an unpacked LibTorch," \
        "or at .../site-packages/torch, or unset it"
    printf '%s\n' "$TORCH_DIR"
    return
  fi
  local prefixes prefix dir
  IFS=':;' read -ra prefixes <<<"${CMAKE_PREFIX_PATH:-}"
  for prefix in "${prefixes[@]}"; do
    for dir in "$prefix" "$prefix/torch" "${prefix%/share/cmake}"; do  # the last is what torch prints
      if [ -e "$dir/include/torch/script.h" ]; then
        printf '%s\n' "$dir"
        return
      fi
    done
  done
}
