#!/bin/sh
# Build TensorRT engines from the ONNX files beside this script, on the device that will run them.
#
#   ./build.sh            all precisions of the kit
#   ./build.sh int8       one precision
#
# Engines run only with the TensorRT version and on the GPU that built them, so they are built here;
# a .json beside each records both. TRTEXEC=/path/to/trtexec overrides the search for trtexec;
# TRTEXEC_FLAGS adds flags (for example --memPoolSize=workspace:1024).
# Written by edgekit for TensorRT 8.5 to 11. Not verified on hardware.
set -eu
cd "$(dirname "$0")"

fail() {
    echo "build.sh: $1" >&2
    exit 1
}

find_trtexec() {
    if [ -n "${TRTEXEC:-}" ]; then
        [ -x "$TRTEXEC" ] && echo "$TRTEXEC"
        return
    fi
    for candidate in "$(command -v trtexec || true)" /usr/src/tensorrt/bin/trtexec; do
        if [ -n "$candidate" ] && [ -x "$candidate" ]; then
            echo "$candidate"
            return
        fi
    done
}

# trtexec prints "[TensorRT v8502]" (8.5.2) or "[TensorRT v101300]" (10.13.0).
read_version() {
    number=$("$1" --help 2>&1 | sed -n 's/.*\[TensorRT v\([0-9]*\)\].*/\1/p' | head -n 1)
    [ -n "$number" ] || fail "the version of $1 is unknown: its help does not show it"
    if [ "$number" -ge 100000 ]; then
        echo $((number / 10000 * 100 + number / 100 % 100))
    else
        echo $((number / 1000 * 100 + number / 100 % 10))
    fi
}

# Up to 10.11: weak typing with --int8 and --fp16. From 10.12: the types of the ONNX file.
build() {
    precision=$1
    if [ "$version" -ge 1100 ]; then
        flags=""
    elif [ "$version" -ge 1012 ]; then
        flags="--stronglyTyped"
        [ "$precision" != fp32 ] || flags="$flags --noTF32"
    else
        case $precision in
            fp32) flags="--noTF32" ;;
            fp16) flags="--fp16" ;;
            int8) flags="--int8 --fp16" ;;
        esac
    fi
    build_only=--skipInference
    [ "$version" -ge 806 ] || build_only=--buildOnly
    onnx=model.$precision.onnx
    if [ "$precision" = int8 ] && [ "$version" -ge 1012 ]; then
        onnx=model.int8.typed.onnx
    fi
    echo "building model.$precision.engine from $onnx ($flags)"
    # shellcheck disable=SC2086  # flags must be split into words
    "$trtexec" --onnx="$onnx" --saveEngine="model.$precision.engine.part" \
        $build_only --profilingVerbosity=detailed $flags ${TRTEXEC_FLAGS:-} \
        > "model.$precision.log" 2>&1 || {
        rm -f "model.$precision.engine.part"
        fail "trtexec failed; see $(pwd)/model.$precision.log"
    }
    mv "model.$precision.engine.part" "model.$precision.engine"
    {
        echo '{'
        echo "  \"tensorrt\": \"$((version / 100)).$((version % 100))\","
        echo "  \"flags\": \"$flags ${TRTEXEC_FLAGS:-}\","
        echo "  \"onnx\": \"$onnx\","
        echo "  \"onnx_sha256\": \"$(sha256sum "$onnx" | cut -d ' ' -f 1)\","
        echo "  \"l4t\": \"$(head -n 1 /etc/nv_tegra_release 2> /dev/null | tr -cd 'A-Za-z0-9 ,.:#()_-' || true)\","
        echo "  \"board\": \"$(tr -cd 'A-Za-z0-9 ,.:()_-' < /proc/device-tree/model 2> /dev/null || true)\","
        echo "  \"power_mode\": \"$(nvpmodel -q 2> /dev/null | head -n 1 | tr -cd 'A-Za-z0-9 :_-' || true)\""
        echo '}'
    } > "model.$precision.engine.json"
}

trtexec=$(find_trtexec || true)
[ -n "$trtexec" ] || [ -z "${TRTEXEC:-}" ] || fail "TRTEXEC=$TRTEXEC is not an executable file"
[ -n "$trtexec" ] || fail "trtexec was not found: install TensorRT, or set TRTEXEC=/path/to/trtexec"
sha256sum --check --quiet SHA256SUMS || fail "files of the kit are damaged: copy it again"
version=$(read_version "$trtexec")
[ "$version" -ge 805 ] || fail "TensorRT $((version / 100)).$((version % 100)) is too old: 8.5 or newer is needed"

wanted=${*:-"fp32 fp16 int8"}
for precision in $wanted; do
    if [ -f "model.$precision.onnx" ]; then
        build "$precision"
    elif [ $# -gt 0 ]; then
        fail "this kit has no model.$precision.onnx"
    fi
done
