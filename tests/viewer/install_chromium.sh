#!/bin/sh
# Installs Chromium and its driver where Debian packages can be had; the viewer's browser tests
# are skipped without them. Silent and quick where they are. Never fails: a machine without apt,
# without root or without a network still runs the other tests.
have_both() {
  { command -v chromium || command -v chromium-browser; } >/dev/null 2>&1 &&
    command -v chromedriver >/dev/null 2>&1
}

skip() {
  {
    echo "************************************************************************"
    echo "CHROMIUM CANNOT BE INSTALLED: $1"
    echo "The viewer's browser tests WILL BE SKIPPED. All others run."
    echo "************************************************************************"
  } >&2
  exit 0
}

have_both && exit 0
command -v apt-get >/dev/null 2>&1 || skip "there is no apt-get; install chromium and chromedriver"
[ "$(id -u)" = 0 ] || skip "not root; run: sudo apt-get install chromium chromium-driver"

echo "installing chromium for the viewer's browser tests" >&2
export DEBIAN_FRONTEND=noninteractive
options="-qq -o Acquire::Retries=1 -o Acquire::http::Timeout=20 -o Acquire::https::Timeout=20 -o DPkg::Lock::Timeout=60"
log=$(mktemp) || skip "no temporary file can be made"
# shellcheck disable=SC2086  (the options are words)
{
  timeout 120 apt-get $options update
  timeout 600 apt-get $options install -y --no-install-recommends chromium chromium-driver
} >"$log" 2>&1 </dev/null
reason=$(tail -n 1 "$log")
rm -f "$log"
have_both || skip "apt-get failed: ${reason:-no reason given}"
exit 0
