# SPDX-License-Identifier: Apache-2.0
"""``hotsnap snapshot create``: in this process, or in one that outlives it."""

import argparse
import contextlib
import json
import os
import signal

from hotsnap_nova import exception
from hotsnap_nova.cmd import base, interrupts

#: From here on the cut stands, and guests have nothing more to do with it.
_CUT_STANDS = frozenset({'save', 'finish'})
_LAB = 'HOTSNAP_LAB'


def add_arguments(parser) -> None:
    parser.add_argument('name', metavar='NAME', help='name of the snapshot')
    base.add_domains(parser)
    parser.add_argument('--gate', default=None, metavar='auto|hold|barrier|marker',
                        help='what keeps packets sent after a cut from members before theirs; '
                             'auto: the best that all can do')
    base.add_addresses(parser)
    parser.add_argument('--max-pause-ms', type=int, metavar='MS',
                        help='fail when a member was suspended longer for its own cut')
    parser.add_argument('--max-hold-ms', type=int, metavar='MS',
                        help='fail when packets were kept back longer')
    parser.add_argument('--deadline-s', type=float, metavar='S',
                        help='abort what is not complete after so many seconds')
    parser.add_argument('--compress', action='store_true', default=None,
                        help='compress memory with zstd')
    parser.add_argument('--description', default='', help='for people')
    parser.add_argument('--wait', action='store_true', help='return when all is saved')
    # Of our own tests: widens the skew between members on purpose.
    parser.add_argument('--record-delay', action='append', default=[], help=argparse.SUPPRESS)


def create(app, args):
    """The database's row of the new snapshot.

    :raises HotsnapError: there is none; nothing of it is left
    :raises Interrupted: likewise, as the user wished
    """
    request = _request(app.conf, args)
    request.check()
    if args.wait:
        return _create_here(app, request)
    return _create_detached(app, request)


def _request(conf, args):
    if not os.environ.get(_LAB) and (args.gate == 'none' or args.record_delay):
        raise exception.InvalidValue(name='gate', reason='none breaks every snapshot; it is for '
                                     f'experiments, with {_LAB}=1 in the environment')
    delays = dict(each.rsplit('=', 1) for each in args.record_delay)

    given = {name: getattr(args, name) for name in
             ('gate', 'max_pause_ms', 'max_hold_ms', 'deadline_s', 'compress')}
    return as_configured(
        conf, args.name, args.domain, description=args.description,
        record_delays_s={name: float(delay) for name, delay in delays.items()},
        addresses=base.addresses(args),
        **{name: value for name, value in given.items() if value is not None})


def as_configured(conf, name: str, domains, **more):
    """A request for a snapshot of these guests of this host.

    :param more: of `requests.CreateRequest`, instead of what is configured
    """
    from hotsnap_nova.conductor import requests
    configured = {each: getattr(conf, each) for each in (
        'gate', 'max_pause_ms', 'max_hold_ms', 'prepare_timeout_s', 'save_timeout_s', 'compress')}
    configured['marker_dscp'] = tuple(conf.marker_dscp)
    return requests.CreateRequest(
        name=name, members=tuple((domain, conf.host) for domain in domains),
        **configured | more)


def _create_here(app, request):
    from hotsnap_nova.cmd import progress
    with (interrupts.Interrupts() as wish,
          progress.open_progress(app.stderr, base.is_quiet(app)) as bars,
          app.open_services() as services):
        snapshots = services.open()
        return _ended(_run(snapshots, request, wish, bars.watch))


def _run(snapshots, request, wish, watch):
    """The row when the snapshot has ended, well or not.

    :raises Interrupted: it was aborted
    """
    if wish.come:
        raise interrupts.Interrupted('interrupted before anything was touched')
    snapshot = snapshots.create(request, watch)
    aborted = False
    while not snapshots.wait_patiently(snapshot, timeout_s=0.2):
        if wish.come and not aborted:
            aborted = True
            with contextlib.suppress(exception.SnapshotBusy):    # too late: it is complete
                snapshots.abort(snapshot, 'the user')
    row = snapshots.get(snapshot)
    if aborted and row.error_code:
        raise interrupts.Interrupted(f'snapshot {request.name} aborted; nothing of it is left')
    return row


def _ended(row):
    """The row of a snapshot that ended well.

    :raises HotsnapError: it did not
    """
    from hotsnap_nova.cmd import view
    if not row.error_code:
        return row
    failed = exception.Conflict(f'Snapshot {row.name} failed: {view.error(row)}.')
    failed.code = row.error_code
    raise failed


# -- detached -------------------------------------------------------------------------------------

def _create_detached(app, request):
    """Fork before any thread is started; the child makes the snapshot, we listen to it."""
    from hotsnap_nova.cmd import progress
    reader, writer = os.pipe()
    with interrupts.Interrupts() as wish:
        child = os.fork()
        if not child:
            os.close(reader)
            _be_the_worker(app, request, wish, writer)
        os.close(writer)
        with (progress.open_progress(app.stderr, base.is_quiet(app)) as bars,
              open(reader) as events):
            snapshot = _listen(events, child, wish, bars)
    with app.open_services() as services:
        return services.open_database().get(snapshot)


def _listen(events, child, wish, bars):
    """The id, once the cut stands."""
    import selectors
    told = False
    selector = selectors.DefaultSelector()
    selector.register(events, selectors.EVENT_READ)
    while True:
        if wish.come and not told:
            told = True
            os.kill(child, signal.SIGTERM)
        if not selector.select(0.2):
            continue
        line = events.readline()
        if not line:
            os.waitpid(child, 0)
            raise exception.Bug(reason='the process that makes the snapshot died')
        event = json.loads(line)
        if 'error' in event:
            os.waitpid(child, 0)
            if event['error']['code'] == 'interrupted':
                raise interrupts.Interrupted(event['error']['message'])
            failed = exception.HotsnapError(event['error']['message'])
            failed.code = event['error']['code']
            raise failed
        bars.watch(event)
        if event.get('phase') in _CUT_STANDS and not told:
            return event['snapshot']


def _be_the_worker(app, request, wish, writer):
    """Make the snapshot to its end, then exit; never returns."""
    os.setsid()
    quiet = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(quiet, number)
    status = 1
    try:
        # Line-buffered; a reader that has gone home is no reason to stop.
        with open(writer, 'w', buffering=1) as pipe, app.open_services() as services:
            def tell(event):
                with contextlib.suppress(BrokenPipeError):
                    pipe.write(json.dumps(event) + '\n')
            try:
                _ended(_run(services.open(), request, wish, tell))
                status = 0
            except interrupts.Interrupted as exc:
                tell({'error': {'code': 'interrupted', 'message': str(exc)}})
            except exception.HotsnapError as exc:
                tell({'error': exc.to_dict()})
            except Exception as exc:
                tell({'error': exception.Bug(reason=f'{type(exc).__name__}: {exc}').to_dict()})
                raise
    finally:
        os._exit(status)
