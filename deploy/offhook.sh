#!/bin/sh
# Runs a command of Offhook's as the service runs: as its user, with its settings, secrets and data folder. For root:
#   install -m 755 deploy/offhook.sh /usr/local/sbin/offhook
set -eu
home=/var/lib/offhook
export OFFHOOK_CONFIG=/etc/offhook/offhook.toml OFFHOOK_DATA_DIR=/var/lib/offhook/offhook-data HOME="$home"
if [ -e /etc/offhook/secrets.env ]; then
    while IFS= read -r line || [ -n "$line" ]; do
        case $line in
        [A-Z]*=*) export "$line" ;;
        esac
    done < /etc/offhook/secrets.env
fi
[ -d "$home" ] || install -d -m 700 -o offhook -g offhook "$home"
cd "$home"
exec setpriv --reuid=offhook --regid=offhook --init-groups -- /opt/offhook/bin/offhook "$@"
