#!/usr/bin/env bash
# Unpacks Debian 13's Swift into a folder without installing it, on any Debian machine, as root: 0.6 GB to download,
# 2.6 GB on disk, a minute. `PATH=FOLDER/bin:$PATH` then has a `swift` that sees /tmp, /home, /root and this checkout.
#     tests/shipping/get-swift.sh FOLDER
set -euo pipefail
root=$(mkdir -p "$1" && cd "$1" && pwd)
mkdir -p "$root"/apt/lists/partial "$root"/apt/cache/archives/partial "$root"/system "$root"/bin
archive=$(apt-get indextargets --format '$(REPO_URI)' 'Origin: Debian' 'Created-By: Packages' |
    grep -v security | head -1)
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $archive trixie main" >"$root/apt/sources"
touch "$root/apt/status"
apt=(apt-get -q -o Dir::Etc::SourceList="$root/apt/sources" -o Dir::Etc::SourceParts=/dev/null
    -o Dir::State::Lists="$root/apt/lists" -o Dir::State::Status="$root/apt/status" -o Dir::Cache="$root/apt/cache"
    -o APT::Install-Recommends=0 -o APT::Sandbox::User=root -o Acquire::Languages=none)
"${apt[@]}" update
"${apt[@]}" install -y --download-only swiftlang libc6-dev libstdc++-14-dev bash coreutils git
for package in "$root"/apt/cache/archives/*.deb; do
    dpkg-deb --fsys-tarfile "$package" | tar -x -C "$root/system" --keep-directory-symlink
done
rm -r "$root/apt"
checkout=$(cd "$(dirname "$0")" && pwd | cut -d / -f 2)  # the folder of / that it is in
if [ -d "$root/system/$checkout" ]; then checkout=; fi  # such as usr
ln -sf bash "$root/system/usr/bin/sh"
mknod -m 666 "$root/system/dev/null" c 1 3 2>/dev/null || true
mknod -m 666 "$root/system/dev/urandom" c 1 9 2>/dev/null || true
cat >"$root/bin/swift" <<EOF
#!/bin/sh
# Runs Debian 13's Swift in its own root folder, with this machine's folders in it.
exec unshare -m sh -c 'folder=\$1; shift; mount -t proc proc $root/system/proc
for each in tmp home root $checkout; do
    mountpoint -q $root/system/\$each && continue
    [ -d /\$each ] && mkdir -p $root/system/\$each && mount --bind /\$each $root/system/\$each
done
[ -d "$root/system\$folder" ] || folder=/
exec chroot $root/system /usr/bin/env -C "\$folder" PATH=/usr/libexec/swift/bin:/usr/bin:/usr/sbin \\
    LD_LIBRARY_PATH=/usr/lib/swift/linux:/usr/libexec/swift/lib/swift/linux swift "\$@"' sh "\$PWD" "\$@"
EOF
chmod +x "$root/bin/swift"
"$root/bin/swift" --version
