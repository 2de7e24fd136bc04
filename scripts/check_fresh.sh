#!/usr/bin/env bash
# Proves that the package list is complete: installs a bare Debian 12 into a temporary folder,
# clones the committed state into it, and runs install_deps.sh, `make` and `make test` there.
# Usage (as root): check_fresh.sh [COMMAND]   (default "make && make test", run in the clone)
# The package mirror and proxy are those of this machine's apt. Needs debootstrap and 4 GB of disk.
set -euo pipefail
cd "$(dirname "$0")/.."
suite=bookworm
command=${1:-make && make test}
[[ $(id -u) == 0 ]] || { echo "error: check-fresh needs root (debootstrap, chroot)" >&2; exit 2; }
for tool in debootstrap unshare chroot git; do
    command -v $tool > /dev/null || { echo "error: check-fresh needs $tool" >&2; exit 2; }
done
mirror=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(CREATED_BY)' |
    awk -v suite=$suite '$2 == suite && $3 == "Packages" { print $1; exit }')
if [[ -z $mirror ]]; then
    echo "error: this machine's apt knows no package source for $suite" >&2
    exit 2
fi

folder=$(mktemp -d)
# All mounts live in the inner mount namespace and end with it, so this removes only our files.
trap 'rm -rf --one-file-system "$folder"' EXIT
root=$folder/root
echo "== debootstrap $suite into $root"
debootstrap --variant=minbase --include=make,ca-certificates $suite "$root" "$mirror" \
    > "$folder/log" || { tail -n 20 "$folder/log" >&2; exit 1; }
git clone -q --no-hardlinks . "$root/plumb"
apt-config dump | grep -E '^Acquire::' > "$root/etc/apt/apt.conf.d/99host" || true
cp /etc/resolv.conf /etc/hosts "$root/etc/"

unshare --mount --propagation private bash -euo pipefail -c '
    mount -t proc proc "$1/proc"
    mount --rbind /sys "$1/sys"
    mount --rbind /dev "$1/dev"
    chroot "$1" env -i HOME=/ LC_ALL=C PATH=/usr/sbin:/usr/bin:/sbin:/bin \
        ${http_proxy:+"http_proxy=$http_proxy"} ${https_proxy:+"https_proxy=$https_proxy"} \
        bash -euo pipefail -c "cd /plumb; scripts/install_deps.sh; $2"
' check_fresh "$root" "$command"
echo "check-fresh: a bare Debian 12 needs nothing that scripts/install_deps.sh does not install"
