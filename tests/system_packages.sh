#!/bin/sh
# The programs that the tests drive for real: a broker, a browser, a message bus. Installs what is missing when it may.
set -eu
missing=""
command -v mosquitto >/dev/null || [ -x /usr/sbin/mosquitto ] || missing="$missing mosquitto"
command -v mosquitto_sub >/dev/null || missing="$missing mosquitto-clients"
command -v dbus-daemon >/dev/null || missing="$missing dbus"
command -v chromium >/dev/null || missing="$missing chromium"
[ -z "$missing" ] && exit 0
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
    echo "The tests need these programs, and this is not root on Debian. Run, then try again:" >&2
    echo "    sudo apt-get install$missing" >&2
    exit 1
fi
echo "installing$missing"
export DEBIAN_FRONTEND=noninteractive
apt-get -qq update
# Without a policy, Debian would start mosquitto as a service on the port that a test may want.
[ -e /usr/sbin/policy-rc.d ] || { printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d; chmod +x /usr/sbin/policy-rc.d; made_policy=1; }
# shellcheck disable=SC2086 # a list of names is meant
apt-get -qq install -y --no-install-recommends $missing >/dev/null
[ -z "${made_policy:-}" ] || rm /usr/sbin/policy-rc.d
