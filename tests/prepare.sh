#!/usr/bin/env bash
# Gets what the tests need beyond Python: Node.js with npm, Chromium, coturn, PostgreSQL, Redis, and the npm packages of
# tests/e2e/js. Installs Debian packages where they are missing and it may; else says plainly what is missing. The tests
# that need it fail then, they are not skipped.
set -euo pipefail
cd "$(dirname "$0")/e2e/js"

declare -A packages=([node]=nodejs [npm]=npm [chromium]=chromium [turnserver]=coturn [turnutils_uclient]=coturn
    [pg_lsclusters]=postgresql [redis-server]=redis-server [faketime]=faketime
    [ip]=iproute2)
missing=()
for program in node npm chromium turnserver turnutils_uclient pg_lsclusters redis-server faketime ip; do
    package=${packages[$program]}
    if ! command -v "$program" >/dev/null && [[ " ${missing[*]-} " != *" $package "* ]]; then
        missing+=("$package")
    fi
done

if ((${#missing[@]})); then
    if [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null; then
        echo "Installing ${missing[*]} from Debian's packages ..."
        apt-get update -qq
        # coturn's package makes a service of it, open to the world. The tests run their own on the loopback address,
        # so the package's is started neither now nor at the next boot.
        policy=/usr/sbin/policy-rc.d
        if [[ ! -e $policy ]]; then
            trap 'rm -f "$policy"' EXIT
            printf '#!/bin/sh\nexit 101\n' >"$policy"
            chmod +x "$policy"
        fi
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
        if [[ " ${missing[*]} " == *" coturn "* ]] && command -v systemctl >/dev/null; then
            systemctl --quiet disable coturn || true
        fi
    else
        echo "MISSING: ${missing[*]}. They cannot be installed from here (that takes root and apt-get);" >&2
        echo "         the end-to-end tests will fail. On Debian: sudo apt-get install ${missing[*]}" >&2
    fi
fi

# npm writes this file last, so it is younger than the lock file once everything in it is installed.
if command -v npm >/dev/null && [[ ! node_modules/.package-lock.json -nt package-lock.json ]]; then
    echo "Installing the npm packages of the end-to-end tests ..."
    npm ci --no-audit --no-fund --loglevel=error
fi
