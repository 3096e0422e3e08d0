#!/bin/sh
# Print the Python that everything here runs on: 3.13, the Lambda runtime's, if this machine has
# it or uv can fetch it; else the newest of 3.12, 3.11 and 3.14 that is here, and say so.
# Usage: local/python.sh any     whatever is at hand, to install uv with
#        local/python.sh UV      the one to run on; UV is the path of uv
set -u
wanted=3.13

version() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null; }

# A candidate may be a pyenv shim for a version that is not selected, so each is run, not only
# looked for.
find_python() {
    for candidate in "python$1" "${PYENV_ROOT:-$HOME/.pyenv}"/versions/"$1".*/bin/python3 python3; do
        if [ "$(version "$candidate")" = "$1" ]; then
            "$candidate" -c 'import sys; print(sys.executable)'
            return 0
        fi
    done
    return 1
}

fallbacks="3.12 3.11 3.14"
if [ "$1" = any ]; then
    for v in $wanted $fallbacks; do find_python "$v" && exit 0; done
    echo "Dropreel needs Python 3.11 or later, and found none." >&2
    exit 1
fi

find_python $wanted && exit 0
here=$(cd "$(dirname "$1")/../.." && pwd)/python
patience=$(command -v timeout >/dev/null && echo "timeout 120")
if UV_PYTHON_INSTALL_DIR=$here $patience "$1" python install -q --no-bin $wanted 2>/dev/null; then
    for python in "$here"/cpython-$wanted*/bin/python$wanted; do
        [ -x "$python" ] && echo "$python" && exit 0
    done
fi
for v in $fallbacks; do
    if python=$(find_python "$v"); then
        echo "Python $wanted is not here and could not be fetched: using $v ($python)." >&2
        echo "$python"
        exit 0
    fi
done
exit 1
