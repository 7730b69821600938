# Sourced by the scripts: installs what is missing, and says so. Needs root (or sudo) only if something is missing.

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

# The command that a package provides, where it differs from the package's name.
command_of() {
  case "$1" in
    fuse3) echo fusermount3 ;;
    attr) echo setfattr ;;
    iproute2) echo ip ;;
    gcc) echo cc ;;
    procps) echo pgrep ;;
    e2fsprogs) echo mkfs.ext4 ;;
    acl) echo setfacl ;;
    # Debian keeps the server out of the path.
    postgresql) echo /usr/lib/postgresql/*/bin/postgres ;;
    *) echo "$1" ;;
  esac
}

install_packages() {
  local missing=() package
  for package in "$@"; do
    command -v "$(command_of "$package")" >/dev/null 2>&1 || missing+=("$package")
  done
  [ ${#missing[@]} -eq 0 ] && return
  if ! command -v apt-get >/dev/null 2>&1; then
    echo "Please install: ${missing[*]} (only Debian and Ubuntu are installed for you)" >&2
    exit 1
  fi
  echo "Installing ${missing[*]} ..."
  as_root apt-get update -qq
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

# Rust 1.90 or newer. rustup's own way, as its site says; nothing is touched if a good one is there.
install_rust() {
  [ -f "$HOME/.cargo/env" ] && . "$HOME/.cargo/env"
  if command -v cargo >/dev/null 2>&1 && cargo --version | awk '{split($2, v, "."); exit !(v[1] > 1 || v[2] >= 90)}'; then
    return
  fi
  install_packages curl ca-certificates
  echo "Installing Rust with rustup ..."
  curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --profile minimal -c clippy -c rustfmt
  . "$HOME/.cargo/env"
}
