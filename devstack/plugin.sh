#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# DevStack sources this in each of its phases; README.rst tells how to enable it.

# Traced functions of ours would drown DevStack's own log.
_XTRACE_HOTSNAP=$(set +o | grep xtrace)
set +o xtrace

source "$HOTSNAP_DIR/devstack/lib/hotsnap"

case "$1 ${2:-}" in
    "stack install")
        echo_summary "Installing hotsnap_nova"
        install_hotsnap
        ;;
    "stack post-config")
        echo_summary "Configuring hotsnap_nova"
        configure_hotsnap
        ;;
    "stack extra")
        if is_service_enabled hotsnap-conductor; then
            echo_summary "Starting nova-hotsnap-conductor"
            init_hotsnap
            start_hotsnap
        fi
        ;;
    "unstack "*)
        stop_hotsnap
        ;;
    "clean "*)
        cleanup_hotsnap
        ;;
esac

$_XTRACE_HOTSNAP
