"""Relief: the wire, its work on real files and a real victim, and the guard's hand."""

import errno
import marshal
import os
import resource
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from forestall.kernel import libc
from forestall.kernel.clock import now_ns
from forestall.kernel.processes import identify
from forestall.relief.hand import Hand
from forestall.relief.serve import RECORD_NAME_BYTES_MAX, Relief
from forestall.relief.wire import PACKET_BYTES_MAX, pair, receive, send

HOG = """
filled = bytearray(64 << 20)
for n in range(0, len(filled), 4096):
    filled[n] = 1
import signal
print("ready", flush=True)
signal.pause()
"""
WAIT_MS = 20_000


@pytest.fixture
def ends():
    ours, theirs = pair()
    theirs.settimeout(20)
    yield ours, theirs
    ours.close()
    theirs.close()


def is_open(fd):
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def readable(fd):
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(WAIT_MS))


# The wire.


def test_a_message_arrives_as_it_was_sent_and_messages_do_not_run_together(ends):
    ours, theirs = ends
    assert send(ours, {"op": "a", "data": b"\0\n" * 9})
    assert send(ours, {"op": "b"})

    assert receive(theirs) == ({"op": "a", "data": b"\0\n" * 9}, None)
    assert receive(theirs) == ({"op": "b"}, None)


def test_a_descriptor_arrives_as_one_of_our_own_and_does_not_survive_an_exec(ends):
    ours, theirs = ends
    reader, writer = os.pipe()
    send(ours, {"op": "reap"}, writer)
    message, fd = receive(theirs)
    os.write(fd, b"x")

    assert message == {"op": "reap"}
    assert fd not in {reader, writer}
    assert not os.get_inheritable(fd)
    assert os.read(reader, 2) == b"x"
    for one in (reader, writer, fd):
        os.close(one)


def test_the_other_sides_end_is_told_from_silence(ends):
    ours, theirs = ends
    with pytest.raises(BlockingIOError):
        receive(ours)
    theirs.close()

    assert receive(ours) == (None, None)
    with pytest.raises(ConnectionError):
        send(ours, {"op": "a"})


def test_what_does_not_fit_is_not_sent_in_part(ends):
    """A packet is sent whole or not at all, so half a message cannot arrive."""
    ours, theirs = ends
    sent = 0
    while send(ours, {"n": sent, "data": b"x" * 30_000}):
        sent += 1
    got = []
    theirs.setblocking(False)
    for _ in range(sent):
        got.append(receive(theirs)[0])

    assert sent > 0
    assert [message["n"] for message in got] == list(range(sent))
    with pytest.raises(BlockingIOError):
        receive(theirs)


@pytest.mark.parametrize(
    "raw", [b"{", b"\xff\xff", marshal.dumps({"a": 1})[:-1], marshal.dumps("x" * PACKET_BYTES_MAX)]
)
def test_a_packet_that_is_not_ours_ends_the_talk_and_leaks_nothing(ends, raw):
    ours, theirs = ends
    ours.sendmsg([raw])

    with pytest.raises(ConnectionError):
        receive(theirs)


def test_what_is_no_dict_is_an_empty_message(ends):
    ours, theirs = ends
    ours.sendmsg([marshal.dumps([1, 2])])

    assert receive(theirs) == ({}, None)


# What relief does.


class Bench:
    """Relief in this very process: one request in, one answer out."""

    def __init__(self, folder, mrelease=lambda _fd: 0, bytes_max=10_000):
        self.ours, theirs = pair()
        self.theirs = theirs
        self.relief = Relief(
            theirs, mrelease=mrelease, record_dir=str(folder), record_bytes_max=bytes_max
        )

    def ask(self, *messages):
        for message, *fd in messages:
            assert send(self.ours, message, *fd)
        self.ours.shutdown(socket.SHUT_WR)
        self.relief.run()
        answers = []
        while True:
            try:
                answers.append(receive(self.ours)[0])
            except BlockingIOError:
                break
        self.ours.close()
        self.theirs.close()
        return answers


def piece(name, data, last=True):
    return ({"op": "write", "name": name, "data": data, "last": last},)


def test_a_record_is_written_piece_by_piece_and_appears_whole(tmp_path):
    folder = tmp_path / "records"
    bench = Bench(folder)
    answers = bench.ask(
        piece("episode-1.jsonl", b"one\n", False),
        piece("episode-1.jsonl", b"two\n"),
        piece("episode-2.jsonl", b"half", False),
    )

    assert answers == [{"op": "written", "name": "episode-1.jsonl"}]
    assert (folder / "episode-1.jsonl").read_bytes() == b"one\ntwo\n"
    assert not (folder / "episode-2.jsonl").exists(), "half a record must not look like one"
    assert (folder / "episode-1.jsonl").stat().st_mode & 0o777 == 0o640
    assert folder.stat().st_mode & 0o007 == 0


def test_a_full_disk_leaves_no_record_that_looks_whole(tmp_path):
    """What is on the disk afterwards is what was whole before, and one sentence says why."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        answers = Bench(tmp_path).ask(
            piece("episode-1.jsonl", b"whole\n"),
            piece("episode-2.jsonl", b"x" * 900, False),
            piece("episode-2.jsonl", b"y" * 900, False),
            piece("episode-2.jsonl", b"z\n"),
            piece("episode-3.jsonl", b"whole\n"),
        )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)

    assert answers == [
        {"op": "written", "name": "episode-1.jsonl"},
        {"op": "failed", "what": "writing a record", "why": "[Errno 27] File too large"},
        {"op": "written", "name": "episode-3.jsonl"},
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "episode-1.jsonl",
        "episode-3.jsonl",
    ]


@pytest.mark.parametrize(
    "name",
    [
        *("", ".", "..", "../out", "/etc/out", "a/b", ".hidden", "a\0b", "a\nb", "\x1b[2J", "é"),
        "x" * (RECORD_NAME_BYTES_MAX + 1),
    ],
)
def test_a_hostile_name_makes_no_file_and_does_not_end_relief(name, tmp_path):
    folder = tmp_path / "deep" / "records"
    answers = Bench(folder).ask(piece(name, b"x"), piece("episode-1.jsonl", b"y"))
    made = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file())

    assert answers == [{"op": "written", "name": "episode-1.jsonl"}]
    assert made == ["deep/records/episode-1.jsonl"]


def test_a_link_in_the_folder_is_not_followed(tmp_path):
    target = tmp_path / "precious"
    target.write_text("precious")
    folder = tmp_path / "records"
    folder.mkdir()
    (folder / "episode-1.jsonl.part").symlink_to(target)
    (answer,) = Bench(folder).ask(piece("episode-1.jsonl", b"x"))

    assert answer["op"] == "failed"
    assert target.read_text() == "precious"


def test_the_oldest_records_make_room_and_strangers_files_do_not(tmp_path):
    for n in range(1, 6):
        (tmp_path / f"episode-{n}.jsonl").write_bytes(b"x" * 3000)
    (tmp_path / "notes.txt").write_bytes(b"x" * 9000)
    Bench(tmp_path, bytes_max=10_000).ask(piece("episode-6.jsonl", b"x" * 3000))
    left = sorted(p.name for p in tmp_path.iterdir())

    assert left == ["episode-4.jsonl", "episode-5.jsonl", "episode-6.jsonl", "notes.txt"]


def test_the_newest_record_stays_however_large_it_is(tmp_path):
    Bench(tmp_path, bytes_max=10).ask(piece("episode-6.jsonl", b"x" * 3000))

    assert [p.name for p in tmp_path.iterdir()] == ["episode-6.jsonl"]


def test_a_file_where_the_folder_should_be_is_an_answer(tmp_path):
    (tmp_path / "records").write_text("in the way")
    (answer,) = Bench(tmp_path / "records").ask(piece("episode-1.jsonl", b"x"))

    assert (answer["op"], answer["what"]) == ("failed", "writing a record")


def test_what_relief_does_not_know_or_does_not_do_is_answered(tmp_path):
    answers = Bench(tmp_path).ask(
        ({"op": "dance"},), ({},), ({"op": "reap"},), ({"op": "relieve", "action": "reclaim"},)
    )

    assert [answer["op"] for answer in answers] == ["failed", "failed", "failed", "declined"]
    assert answers[3]["action"] == "reclaim"


def test_reaping_is_tried_again_while_the_victim_is_locked_and_not_for_ever(tmp_path):
    tries = []
    busy = Bench(tmp_path, lambda _fd: tries.append(1) or (0 if len(tries) == 3 else errno.EAGAIN))
    fd, writer = os.pipe()  # not readable, like the pidfd of a process that is still there
    (answer,) = busy.ask(({"op": "reap", "killed_ns": 0}, fd))
    os.close(fd)
    os.close(writer)

    assert len(tries) == 3
    assert answer["errno"] == 0


def test_the_descriptor_to_reap_is_closed_afterwards(tmp_path):
    seen = []
    fd, writer = os.pipe()
    Bench(tmp_path, lambda got: seen.append(got) or errno.ESRCH).ask(({"op": "reap"}, fd))

    assert len(seen) == 1
    assert not is_open(seen[0])
    assert is_open(fd), "the guard's own stays open: it waits for the death"
    os.close(fd)
    os.close(writer)


def test_a_victim_that_goes_by_itself_is_not_helped(tmp_path):
    """Help takes a processor, at the very moment when bystanders wait for one."""
    helped = []
    fd, writer = os.pipe()
    os.write(writer, b"gone")  # readable, like the pidfd of a process that has ended
    (answer,) = Bench(tmp_path, lambda got: helped.append(got) or 0).ask(
        ({"op": "reap", "killed_ns": now_ns()}, fd)
    )
    os.close(fd)
    os.close(writer)

    assert helped == []
    assert answer["errno"] == errno.ESRCH


@pytest.fixture
def hand(tmp_path):
    """A hand with a real relief behind it."""

    def serve(end):
        Relief(
            end,
            mrelease=libc.process_mrelease,
            record_dir=str(tmp_path / "records"),
            record_bytes_max=10**6,
        ).run()

    hand = Hand(serve)
    yield hand
    pid = hand.pid
    hand.close()
    if pid:
        bury(pid)


def bury(pid):
    try:
        os.waitpid(pid, 0)
    except ChildProcessError:
        pass


def test_a_real_victims_memory_is_given_back_by_relief(hand):
    """64 MiB, SIGKILLed and handed over; a bystander of the same size keeps its own."""
    hand.start()
    argv = [sys.executable, "-I", "-S", "-c", HOG]
    victim, bystander = (subprocess.Popen(argv, stdout=subprocess.PIPE) for _ in range(2))
    for child in (victim, bystander):
        child.stdout.readline()
        child.stdout.close()
    pidfd = os.pidfd_open(victim.pid)
    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    hand.reap(pidfd)
    answered = readable(hand.fd)
    (news,) = hand.news()
    statm = Path(f"/proc/{bystander.pid}/statm").read_text().split()
    victim.wait()
    bystander.kill()
    bystander.wait()
    os.close(pidfd)

    assert answered
    assert news["op"] == "reaped"
    # Done, or the victim was quicker than we were. A kernel before 5.15 has no such call.
    assert news["errno"] in {0, errno.ESRCH, errno.EINVAL, errno.ENOSYS}
    assert int(statm[1]) * os.sysconf("SC_PAGE_SIZE") > 60 << 20


def test_a_living_process_is_not_reaped(hand):
    """process_mrelease refuses whoever is not dying: a second line of defence."""
    hand.start()
    bystander = subprocess.Popen(["sleep", "60"])
    pidfd = os.pidfd_open(bystander.pid)
    hand.reap(pidfd)
    answered = readable(hand.fd)
    (news,) = hand.news()
    alive = bystander.poll() is None
    bystander.kill()
    bystander.wait()
    os.close(pidfd)

    assert answered
    assert news["errno"] in {errno.EINVAL, errno.ENOSYS}
    assert alive


def test_a_record_goes_through_the_hand_to_the_disk(hand, tmp_path):
    hand.start()
    sent = hand.write("episode-1.jsonl", b"x" * 30_000, last=False)
    sent = sent and hand.write("episode-1.jsonl", b"y", last=True)
    answered = readable(hand.fd)

    assert sent
    assert answered
    assert hand.news() == [{"op": "written", "name": "episode-1.jsonl"}]
    assert (tmp_path / "records/episode-1.jsonl").stat().st_size == 30_001
    assert hand.dropped == 0


def test_relief_ends_when_we_let_go(hand):
    hand.start()
    pidfd = os.pidfd_open(hand.pid)
    hand.close()
    gone = readable(pidfd)
    os.close(pidfd)

    assert gone
    assert hand.fd == -1


def test_relief_ends_with_a_guard_that_is_killed():
    """Even SIGKILL closes the socket, and that is all relief waits for."""
    code = (
        "import os, signal, sys\n"
        "from forestall.relief.hand import Hand\n"
        "from forestall.relief.wire import receive\n"
        "hand = Hand(lambda end: receive(end))\n"
        "hand.start()\n"
        "print(hand.pid, flush=True)\n"
        "signal.pause()\n"
    )
    source = str(Path(__file__).parents[2] / "src")
    guard = subprocess.Popen(
        [sys.executable, "-S", "-c", code], stdout=subprocess.PIPE, env={"PYTHONPATH": source}
    )
    pidfd = os.pidfd_open(int(guard.stdout.readline()))
    guard.kill()
    guard.wait()
    guard.stdout.close()
    gone = readable(pidfd)
    os.close(pidfd)

    assert gone


def test_relief_does_not_end_by_the_signals_that_end_the_guard(hand, tmp_path):
    """Ctrl-C reaches the whole group; the last record still has to be written."""
    hand.start()
    ready = hand.relieve("reclaim") and readable(hand.fd)
    hand.news()
    pidfd = os.pidfd_open(hand.pid)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.pidfd_send_signal(pidfd, number)
    os.close(pidfd)
    sent = hand.write("episode-1.jsonl", b"last words", last=True)

    assert ready
    assert sent
    assert readable(hand.fd)
    assert hand.news() == [{"op": "written", "name": "episode-1.jsonl"}]


def test_what_a_busy_relief_does_not_take_is_dropped_and_counted():
    hold_reader, hold_writer = os.pipe()
    busy = Hand(lambda _end: os.read(hold_reader, 1))
    busy.start()
    sent = 0
    while busy.relieve("x" * 4000):
        sent += 1
    pid = busy.pid
    os.write(hold_writer, b"x")
    busy.close()
    bury(pid)
    for fd in (hold_reader, hold_writer):
        os.close(fd)

    assert sent > 0
    assert busy.dropped == 1


def test_a_relief_that_died_is_noticed_and_costs_nothing(hand):
    hand.start()
    pidfd = os.pidfd_open(hand.pid)
    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    gone = readable(pidfd)
    os.close(pidfd)
    news = hand.news()
    after = hand.relieve("reclaim")

    assert gone
    assert news == []
    assert hand.fd == -1
    assert after is False
    assert hand.dropped == 1


def test_a_relief_that_died_can_be_started_again(hand, tmp_path):
    hand.start()
    pidfd = os.pidfd_open(hand.pid)
    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    assert readable(pidfd)
    os.close(pidfd)
    hand.news()
    hand.start()
    hand.write("episode-1.jsonl", b"x", last=True)

    assert readable(hand.fd)
    assert hand.news()[0]["op"] == "written"


def test_a_garbled_answer_is_the_end_of_relief_and_not_of_the_guard():
    babbler = Hand(lambda end: end.send(b"\xff\xff"))
    babbler.start()
    pid = babbler.pid
    assert readable(babbler.fd)
    news = babbler.news()
    bury(pid)

    assert news == []
    assert babbler.fd == -1


def test_without_a_relief_everything_is_dropped():
    hand = Hand(lambda _end: None)
    hand.reap(0)

    assert hand.dropped == 1
    assert hand.news() == []
    assert identify(os.getpid()).pid == os.getpid()
