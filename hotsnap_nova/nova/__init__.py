# SPDX-License-Identifier: Apache-2.0
"""The participant inside nova-compute."""
