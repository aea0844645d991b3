# shellcheck shell=bash disable=SC2034
# Sourced by the tests beside it. scripts/test gives them TEST_SHIM (the thinshim binary), TEST_KERNEL (an
# O= directory that it built, to be copied, not changed), TEST_TREE (the source), TEST_SCRIPTS, TEST_MASQUERADE (a
# directory in which clang is ccache) and TEST_CACHE (thinshim's own, filled by the build's links).
set -Eeuo pipefail
# Without this, a command that fails takes the test away without a word.
trap 'echo "FAILED: line $LINENO of ${0##*/}: $BASH_COMMAND" >&2' ERR
fail() {
  echo "FAILED: $*" >&2
  exit 1
}
# Each of these tests wants to see back ends run.
export THINSHIM_CACHE=off
needs_nothing() { [[ ${1:-} != --needs ]] || exit 0; }

# copy_kernel: sets `copy` to a copy of the build, in a directory that goes away with the test.
copy_kernel() {
  work=$(mktemp -d "${TEST_KERNEL%/*}/test.XXXXXX")
  trap 'rm -rf "$work"' EXIT
  copy=$work/out
  cp -a --reflink=auto "$TEST_KERNEL" "$copy"
}

# kmake ARGUMENTS...: make on the copy, with the tool as the compiler and the linker.
kmake() { make -C "$copy" LLVM=1 CC="$TEST_SHIM clang" LD="$TEST_SHIM ld.lld" "$@"; }

# is_bitcode FILE: raw, or inside the bitcode wrapper.
is_bitcode() {
  case $(od -An -N4 -tx1 "$1" | tr -d ' ') in
  4243c0de | dec0170b) return 0 ;;
  *) return 1 ;;
  esac
}
is_elf() { [[ $(od -An -N4 -tx1 "$1" | tr -d ' ') == 7f454c46 ]]; }

# clang_wrapper COMMANDS: sets `wrapper` to a clang that runs these shell commands, then the real one; for
# THINSHIM_CLANG. Needs `work`.
clang_wrapper() {
  local real
  real=$(readlink -f "$(command -v clang)")
  mkdir -p "$work/llvm/bin"
  # thinshim tells clang's version by the directory beside it.
  ln -sfn "$(dirname "$(dirname "$real")")/lib" "$work/llvm/lib"
  wrapper=$work/llvm/bin/clang
  printf '#!/bin/sh\n%s\nexec %q "$@"\n' "$1" "$real" >"$wrapper"
  chmod +x "$wrapper"
}
