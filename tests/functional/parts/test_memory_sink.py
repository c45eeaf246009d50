# SPDX-License-Identifier: Apache-2.0
"""Where a guest's memory goes: the guest never waits for the file."""

import contextlib
import os
import select
import threading

import blake3
import pytest
import zstandard

from hotsnap_nova.virt.memory import saveimage, saving

XML = '<domain><name>guest</name></domain>'


class Blocked:
    """A file on a store that hangs."""

    def __init__(self):
        self.reached = threading.Event()
        self.freed = threading.Event()

    def write(self, _data):
        self.reached.set()
        self.freed.wait(30)
        raise OSError(5, 'Input/output error')

    def close(self):
        pass


class Full:
    """A file on a full store."""

    def write(self, _data):
        raise OSError(28, 'No space left on device')

    def close(self):
        pass


def stream(sink, data):
    """What QEMU does: writes until it is done or met with an error; which."""
    fd = os.dup(sink.write_fd)
    sink.start()
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view[:1 << 20]):]
        return None
    except OSError as exc:
        return exc
    finally:
        os.close(fd)


@pytest.mark.parametrize('hurried', [False, True])
def test_the_file_is_a_save_image_and_its_digest_is_of_its_content(tmp_path, hurried):
    path = str(tmp_path / 'memory.save')
    data = os.urandom(3 << 20)
    sink = saving.MemorySink(path, XML, compress=False)
    if hurried:
        sink.keep(saving.Pace.FAST)

    assert stream(sink, data) is None
    size, digest = sink.finish()

    with open(path, 'rb') as file:
        content = file.read()
    head = saveimage.read_header(path)
    assert head.whole
    assert head.xml == XML
    assert content[head.stream_offset:] == data
    assert size == len(content)
    assert digest == blake3.blake3(content).hexdigest()
    assert os.stat(path).st_mode & 0o777 == 0o600


def test_a_compressed_file_unpacks_to_the_same_save_image(tmp_path):
    path = str(tmp_path / 'memory.save.zst')
    data = b'much the same ' * 200_000
    sink = saving.MemorySink(path, XML, compress=True)
    sink.keep(saving.Pace.FAST)

    assert stream(sink, data) is None
    size, digest = sink.finish()

    with open(path, 'rb') as file:
        packed = file.read()
    unpacked = zstandard.ZstdDecompressor().decompressobj().decompress(packed)
    assert unpacked == saveimage.header(XML, whole=True) + data
    assert size == len(packed) < len(data) // 10
    assert digest == blake3.blake3(packed).hexdigest()


def test_until_the_end_libvirt_would_refuse_the_file(tmp_path):
    path = str(tmp_path / 'memory.save')
    sink = saving.MemorySink(path, XML, compress=False)

    whole_before = saveimage.read_header(path).whole
    sink.close()

    assert not whole_before
    assert not saveimage.read_header(path).whole


def test_a_full_store_ends_the_stream_with_its_reason(tmp_path):
    sink = saving.MemorySink(str(tmp_path / 'memory.save'), XML, compress=False)
    sink._file = Full()
    sink.keep(saving.Pace.FAST)

    error = stream(sink, bytes(200 << 20))

    assert isinstance(error, (BrokenPipeError, ConnectionResetError))
    assert sink.failure == 'No space left on device'


def test_a_store_that_hangs_ends_the_stream_and_the_guest_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(saving, 'STALL_LIMIT_S', 0.3)
    sink = saving.MemorySink(str(tmp_path / 'memory.save'), XML, compress=False)
    sink._file = hung = Blocked()
    sink.keep(saving.Pace.FAST)

    error = stream(sink, bytes(200 << 20))

    assert hung.reached.is_set()
    assert isinstance(error, (BrokenPipeError, ConnectionResetError))
    assert 'nothing could be written' in sink.failure
    hung.freed.set()


def test_giving_up_ends_the_stream_at_once(tmp_path):
    sink = saving.MemorySink(str(tmp_path / 'memory.save'), XML, compress=False)
    errors = []
    writer = threading.Thread(target=lambda: errors.append(stream(sink, bytes(1 << 30))))
    writer.start()
    while not sink.received_bytes:
        pass

    sink.close()
    writer.join(30)

    assert len(errors) == 1
    assert isinstance(errors[0], (BrokenPipeError, ConnectionResetError))


def test_even_a_gentle_reader_never_stops(tmp_path):
    sink = saving.MemorySink(str(tmp_path / 'memory.save'), XML, compress=False)

    # More than the socket holds: without a reader this would never end.
    assert stream(sink, bytes(64 << 20)) is None

    sink.finish()
    assert sink.received_bytes == 64 << 20


def test_whoever_waits_to_write_goes_on_after_one_read(tmp_path):
    # Replay: with a socket of 1 MiB and 64 KiB a time, a guest's write waited for many reads.
    sink = saving.MemorySink(str(tmp_path / 'memory.save'), XML, compress=False)
    os.set_blocking(sink.write_fd, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(sink.write_fd, bytes(4104))
    room = select.poll()
    room.register(sink.write_fd, select.POLLOUT)
    before = room.poll(0)

    os.read(sink.socket.fileno(), saving._READ_BYTES)

    assert not before
    assert room.poll(0)
    sink.close()


def test_who_gives_up_while_another_does_closes_nothing_of_others(tmp_path, monkeypatch):
    sink = saving.MemorySink(str(tmp_path / 'memory.save'), '<domain/>', compress=False)
    number, closed, close = sink.write_fd, [], os.close

    def meanwhile(fd):
        closed.append(fd)
        sink.close()
        close(fd)
    monkeypatch.setattr(saving.os, 'close', meanwhile)

    sink.close()

    assert closed.count(number) == 1
