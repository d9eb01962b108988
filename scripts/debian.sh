#!/bin/sh
# Installs the Debian packages that tests use and no Python index has: sh scripts/debian.sh [image]
# A browser for the pages, an ssh server for workers on several hosts, what builds Horovod; with `image` also what builds
# the container image (tests/test_image_build.py). Silent where all is there. Without root or apt-get it says what is
# missing and ends well: tests that need it are skipped.
set -eu
PATH=$PATH:/usr/sbin
programs="chromium chromedriver ssh-keygen sshd g++ cmake make patch"
[ "${1:-}" != image ] || programs="$programs buildah debootstrap"

packages=
for program in $programs; do
    if command -v "$program" >/dev/null; then
        continue
    fi
    case $program in
    chromedriver) packages="$packages chromium-driver" ;;
    ssh-keygen) packages="$packages openssh-client" ;;
    sshd) packages="$packages openssh-server" ;;
    *) packages="$packages $program" ;;
    esac
done
[ -n "$packages" ] || exit 0
todo="as root on Debian: apt-get install --no-install-recommends$packages"
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "not installed:$packages; tests that need them will be skipped ($todo)" >&2
    exit 0
fi
# Where services run, the package would start an ssh server for everybody; the tests want only the program.
if [ -d /run/systemd/system ]; then
    packages=$(printf '%s' "$packages" | sed 's/ openssh-server//')
    [ -n "$packages" ] || exit 0
fi
echo "installing$packages" >&2
export DEBIAN_FRONTEND=noninteractive
install() {
    # shellcheck disable=SC2086  # one package a word
    apt-get install -qq --yes --no-install-recommends -o DPkg::Lock::Timeout=300 $packages >/dev/null
}
# The lists may be absent or old.
install 2>/dev/null || { apt-get update -qq && install; } ||
    echo "apt-get failed; tests that need$packages will be skipped" >&2
