# shellcheck shell=bash disable=SC2034,SC2154
# Sourced, after lib.sh, by scripts that change a kernel's source: they see it below an overlay, in a mount namespace
# of their own, so that the tree that all share stays as Debian has it.

# own_mounts ARGUMENT...: goes on in a mount namespace, by running the script again there.
own_mounts() {
  [[ -z ${THINSHIM_OWN_MOUNTS:-} ]] || return 0
  [[ $(id -u) == 0 ]] || die "only root can mount an overlay over the source"
  THINSHIM_OWN_MOUNTS=1 exec unshare --mount --propagation private "$0" "$@"
}

# overlay VERSION DIRECTORY: kernel_source's tree as it is, in a layer of its own below DIRECTORY; overlay_off takes it
# away. Sets `kernel_tree`.
overlay() {
  kernel_source "$1"
  overlay_tree "$kernel_tree" "$2"
}

# overlay_tree TREE DIRECTORY: the same for a tree that is there.
overlay_tree() {
  rm -rf "$2/upper" "$2/layer"
  mkdir -p "$2/upper" "$2/layer"
  mount -t overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/layer" thinshim "$1"
  overlaid=$1
}

overlay_off() {
  cd /
  [[ -z ${overlaid:-} ]] || umount -l "$overlaid" 2>/dev/null || true
  overlaid=''
}
