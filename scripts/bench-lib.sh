# shellcheck shell=bash disable=SC2034,SC2154
# Sourced by scripts/bench and scripts/bench-edits, after lib.sh: the objects and the stamps that rows share. `config`,
# `jobs` and `shim` are the caller's.

# bench_stamps: kernels that are built twice for a comparison must not differ by who built them when.
bench_stamps() {
  export KBUILD_BUILD_TIMESTAMP='Thu Jan  1 00:00:00 UTC 2026' KBUILD_BUILD_VERSION=1
  export KBUILD_BUILD_USER=thinshim KBUILD_BUILD_HOST=bench
}

# bench_ccache: a ccache of the benches' own (up to 10 GB), so that the user's is neither asked nor filled.
bench_ccache() {
  export CCACHE_DIR=$cache/ccache CCACHE_MAXSIZE=10G CCACHE_CONFIGPATH=/dev/null
}

# Where the benches' rows go.
results=$cache/bench.jsonl

# bench_versions: sets `versions`, of the tools and of the kernel that `config` configures.
bench_versions() {
  local lld make
  lld=$(ld.lld --version | sed -n 's/.*LLD \([0-9.]*\).*/lld \1/p')
  make=$(make --version | sed -n '1s/GNU Make/make/p')
  versions="$(clang --version | sed -n '1s/.*version \([0-9.]*\).*/clang \1/p'), $lld, $make, Linux $kernel_version $config"
}

# bench_objects NAME [build options]: the kernel's objects, compiled through thinshim and ccache; sets `objects`.
bench_objects() {
  objects=$cache/bench-$config-$1
  shift
  if [[ -e $objects/.done ]]; then
    # A row that ends with make clean has taken the modules away.
    [[ " $* " != *" modules "* || -e $objects/modules.order ]] && return
  else
    rm -rf "$objects"
  fi
  kernel_source "$kernel_version"
  (
    bench_stamps
    bench_ccache
    PATH=${shim%/*}:$PATH "$scripts/kernel" build "$kernel_tree" --config "$config" --out "$objects" \
      --cc "thinshim ccache clang" --ld "thinshim ld.lld" -j "$jobs" "$@"
  )
  touch "$objects/.done"
}

# saved_link OUTPUT: the linker's arguments, without the linker, that Kbuild used for it.
saved_link() {
  sed -n 's/^savedcmd_[^ ]* := \(thinshim \)\?ld\.lld \([^;]*\).*/\2/p' "$objects/$(dirname "$1")/.$(basename "$1").cmd"
}
