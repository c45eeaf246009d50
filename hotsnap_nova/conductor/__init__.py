# SPDX-License-Identifier: Apache-2.0
"""The coordinator service: drives group snapshots, alone has the database."""
