# SPDX-License-Identifier: Apache-2.0
"""Parts of the engine alone, without a guest."""
