# SPDX-License-Identifier: Apache-2.0
"""`tests.crash` in a cloud: everything killed at every step of a restore, Nova around it.

The same guests, plots and judgement; the services are the cloud's own, Nova with them, and what
ends a claim is Nova's word that the server has no task any more.

=============  ==============================================================
`met`          nova-compute and our conductor, made to stand still
`site`         the cloud, killed in parts, and healed
`__main__`     every case, and the table of them (``make test-crash-cloud``)
=============  ==============================================================
"""
