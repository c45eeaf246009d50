#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# What DevStack gives a plugin, as far as ours uses it. What would change the host is written to
# $CALLS instead; files of options are changed as DevStack's inc/ini-config changes them.
#
# The caller sets TOP (a folder), CALLS (a file) and ENABLED_SERVICES.

set -o errexit -o pipefail

export DATA_DIR=$TOP/data STACK_USER=stack NOVA_DIR=$TOP/nova NOVA_BIN_DIR=$TOP/bin
export NOVA_CONF_DIR=$TOP/etc/nova
export NOVA_CONF=$NOVA_CONF_DIR/nova.conf NOVA_CPU_CONF=$NOVA_CONF_DIR/nova-cpu.conf
export HOTSNAP_TMPFILES_CONF=$TOP/etc/tmpfiles.d/hotsnap.conf
export SYSTEMD_DIR=$TOP/etc/systemd/system
export NOVA_API_PASTE_INI=$NOVA_CONF_DIR/api-paste.ini

call() { printf '%s\n' "$*" >>"$CALLS"; }

echo_summary() { call echo_summary "$@"; }
setup_develop() { call setup_develop "$@"; }
recreate_database() { call recreate_database "$@"; }
database_connection_url() { echo "mysql+pymysql://root:secret&word@127.0.0.1/$1?charset=utf8"; }
stop_process() { call stop_process "$@"; }
run_process() { if is_service_enabled "$1"; then call run_process "$@"; fi; }
die() {
    echo "die: $*" >&2
    exit 1
}

is_service_enabled() { [[ ,$ENABLED_SERVICES, == *,$1,* ]]; }
enable_service() {
    if [[ ,${DISABLED_SERVICES:-}, != *,$1,* ]] && ! is_service_enabled "$1"; then
        ENABLED_SERVICES+=,$1
    fi
}

# Nobody is root here, and the kernel's settings are the machine's.
sudo() {
    if [[ $1 == sysctl || $1 == systemctl ]]; then
        call "$@"
    else
        "$@"
    fi
}
install() {
    local words=()
    while (($#)); do
        if [[ $1 == -o ]]; then shift; else words+=("$1"); fi
        shift
    done
    command install "${words[@]}"
}

_section() { sed -n "/^\[$2\]/,/^\[/p" "$1"; }
iniget() { _section "$1" "$2" | sed -n "s/^$3[ \t]*=[ \t]*//p"; }
iniset() {
    local value
    # shellcheck disable=SC2001  # & in bash's own replacements differs between its versions
    value=$(sed -e 's/[\\&|]/\\&/g' <<<"$4")
    grep -q "^\[$2\]" "$1" 2>/dev/null || printf '\n[%s]\n' "$2" >>"$1"
    if _section "$1" "$2" | grep "^$3[ \t]*=" >/dev/null; then
        sed -i "/^\[$2\]/,/^\[/ s|^\($3[ \t]*=[ \t]*\).*|\1$value|" "$1"
    else
        sed -i "s|^\[$2\]|&\n$3 = $value|" "$1"
    fi
}
