# SPDX-License-Identifier: Apache-2.0
"""A service of the cloud that stands still at a command, where it is told to.

``python met.py GIVEN COMMAND …``: the command is a console script of the environment; GIVEN is
JSON: ``module`` has the script's ``main``; ``control`` and ``name`` are the probe's; ``called``
has hosts' names in the steps, by their own; ``environment`` is for what the service starts.
"""

import faulthandler
import importlib
import json
import os
import pathlib
import signal
import sys

_CHECKOUT = pathlib.Path(__file__).parents[3]


def _let_be_met(given):
    from hotsnap_nova.compute import server
    from hotsnap_nova.compute import service as compute
    from hotsnap_nova.conductor import service as conductor
    from tests.crash import probe
    met = []

    def opening(begin):
        # Not before: only the process that serves is to be met, and it may be a fork.
        def begun(*arguments, **named):
            met.append(probe.Probe(given['control'], given['name'], given['called']))
            met[0].meet()
            return begin(*arguments, **named)
        return begun

    def telling(begin):
        def begun(*arguments, **named):
            begin(*arguments, **named)
            met[0].say(ready=True)
        return begun
    compute.open_manager = opening(compute.open_manager)
    server.Server.start = telling(server.Server.start)
    conductor.Service.start = telling(opening(conductor.Service.start))


def main() -> int | None:
    given, sys.argv = json.loads(sys.argv[1]), sys.argv[2:]
    os.environ.update(given['environment'])
    # The installed hotsnap_nova comes first: only tests are the checkout's.
    sys.path.append(str(_CHECKOUT))
    # It is the first to be imported: it says how threads are made.
    module = importlib.import_module(given['module'])
    _let_be_met(given)
    faulthandler.register(signal.SIGUSR1)
    return module.main()


if __name__ == '__main__':
    sys.exit(main())
