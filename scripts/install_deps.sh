#!/usr/bin/env bash
# Installs what the build needs and this machine lacks, by apt (Debian 12; Ubuntu 24.04 by intent).
# Usage: install_deps.sh [--ci]   (--ci adds the second compiler with its fuzzer, the checkers and a
# browser)
# Prints what it will install before it does; says and does nothing when all is there.
# SKIP_INSTALL=1 trusts the machine, for systems without apt: CMake then names what it misses.
set -euo pipefail
[[ ${SKIP_INSTALL:-} == 1 ]] && exit 0

packages=(g++ cmake make ninja-build libzstd-dev libxxhash-dev libtomlplusplus-dev
          nlohmann-json3-dev libcli11-dev libfmt-dev libgtest-dev libopenmpi-dev openmpi-bin)
case "${1:-}" in
    "") ;;
    --ci) packages+=(clang libclang-rt-dev libomp-dev clang-format clang-tidy python3 git chromium) ;;
    *) echo "error: install_deps.sh: unknown argument '$1' (only --ci is known)" >&2; exit 2 ;;
esac

# A tool counts as present however it came; a library only as a package.
present() {
    case "$1" in
        g++ | make | clang-format | clang-tidy | python3 | git | chromium)
            command -v "$1" > /dev/null && return ;;
        cmake) cmake_is_enough; return ;;
        libopenmpi-dev | openmpi-bin)  # any MPI, as clusters have their own
            command -v mpicxx > /dev/null && command -v mpirun > /dev/null && return ;;
        ninja-build) command -v ninja > /dev/null && return ;;
        clang) command -v clang++ > /dev/null && return ;;
    esac
    dpkg-query -W -f='${db:Status-Status}\n' "$1" 2> /dev/null | grep -qx installed
}
cmake_version() { cmake --version 2> /dev/null | sed -n 's/^cmake version //p'; }
cmake_is_enough() {
    local version
    version=$(cmake_version)
    [[ -n $version && $(printf '%s\n' 3.25 "$version" | sort -V | head -n1) == 3.25 ]]
}

missing=()
for package in "${packages[@]}"; do
    present "$package" || missing+=("$package")
done
[[ ${#missing[@]} == 0 ]] && exit 0

if ! command -v apt-get > /dev/null; then
    cat >&2 <<TEXT
error: apt-get was not found, and these packages (by their Debian names) look missing:
    ${missing[*]}
Install them in your system's way, then run again with SKIP_INSTALL=1.
TEXT
    exit 2
fi
as_root=()
if [[ $(id -u) != 0 ]]; then
    if ! command -v sudo > /dev/null; then
        echo "error: missing packages, and neither root nor sudo to install them. As root, run:" >&2
        echo "    apt-get install ${missing[*]}" >&2
        exit 2
    fi
    as_root=(sudo)
fi
echo "Installing by apt: ${missing[*]}"
# A broken foreign package source must not stop us: what matters is whether the install succeeds.
"${as_root[@]}" apt-get -q update ||
    echo "warning: apt-get update failed; going on with the package lists at hand" >&2
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get -q install -y --no-install-recommends "${missing[@]}"
if ! cmake_is_enough; then
    echo "error: CMake is $(cmake_version) after the installation; 3.25 or later is needed" >&2
    exit 2
fi
