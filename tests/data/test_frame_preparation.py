"""Several processes, interruptions and rivals: the store is always the same."""

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from frame_testing import Frames, frame
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from isthmus.data import folder_lock, frame_writer, publish
from isthmus.data.clouds import Unreadable
from isthmus.data.frame_reading import RUN, WorkerLost, reading_workers
from isthmus.data.frame_store import FrameStore, prepare_frames
from isthmus.data.frame_writer import FrameWriter
from isthmus.data.frames import Frame
from isthmus.errors import DataError

COUNT = 23
SIZE = (6, 9)

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="locks of folders are those of Unix")


def entry(index: int) -> Frame | Unreadable:
    """Frames of all parts; one of five cannot be read, and one of seven is not what it should be."""
    if index % 5 == 2:
        return Unreadable(f"{index:03d}", f"broken {index}")
    made = frame(index, 3 + index % 4, part=("train", "val", "test")[index % 3])
    if index % 7 == 3:
        return made._replace(points=made.points * np.float32(np.nan))
    return made._replace(projection=None) if index % 2 else made


@dataclass(frozen=True)
class Logged(Frames):
    """Writes down which frames were read, and does something before one of them."""

    log: Path | None = None
    at: int = -1
    do: Callable[[], object] | None = None

    def read(self, entry: int) -> Frame | Unreadable:
        if entry == self.at and self.do is not None:
            self.do()
        if self.log is not None:
            with self.log.open("a") as file:
                file.write(f"{entry}\n")
        return super().read(entry)

    def seen(self) -> list[int]:
        return sorted(map(int, self.log.read_text().split())) if self.log is not None and self.log.exists() else []


READER = Logged(tuple(entry(index) for index in range(COUNT)))


def content(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def files(cache: Path) -> dict[str, bytes]:
    """The files of the one store in a folder in which nothing else is left."""
    (folder,) = cache.iterdir()
    return content(folder)


def work(cache: Path) -> Path:
    """What was interrupted."""
    (folder,) = cache.glob(".preparing-*")
    return folder


def journal(cache: Path) -> list[dict]:
    return [json.loads(line) for line in (work(cache) / "journal.jsonl").read_text().splitlines()]


def done(cache: Path) -> int:
    return sum(len(line["kept"]) + len(line["skipped"]) for line in journal(cache)[1:])


def in_a_process(task: Callable[[], object], *, wait: bool = True) -> multiprocessing.Process:
    """Run it in a forked process with a session of its own; hand that back at once, or when it has ended."""

    def run() -> None:
        os.setsid()
        task()

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    if wait:
        # With a time limit this would wait for its children as well.
        process.join()
    return process  # type: ignore[return-value]


def sessions() -> set[int]:
    """Sessions of all processes that live."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, session = stat.read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue
        if state not in "ZX":
            found.add(int(session))
    return found


def dies_after(adds: int) -> Callable[[FrameWriter, Frame | Unreadable], None]:
    """``FrameWriter.add``, after so many calls of which nothing more is done, not even tidying up."""
    real, left = FrameWriter.add, [adds]

    def add(self: FrameWriter, found: Frame | Unreadable) -> None:
        real(self, found)
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)

    return add


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    cache = tmp_path_factory.mktemp("uninterrupted")
    store = prepare_frames(READER, cache, SIZE)
    usable = [i for i in range(COUNT) if i % 5 != 2 and i % 7 != 3]
    assert store.names == tuple(f"{i:03d}" for i in usable)
    unusable = [i for i in range(COUNT) if i not in usable]
    assert [skipped.name for skipped in store.skipped] == [f"{i:03d}" for i in unusable]
    assert store.skipped[0].reason == "broken 2" and "finite" in store.skipped[1].reason
    for row, index in enumerate(usable):
        span = slice(store.offsets[row], store.offsets[row + 1])
        np.testing.assert_array_equal(store.points[span], READER.given[index].points)
    return files(cache)


@pytest.mark.parametrize("workers", [1, 2, 50])
def test_processes_that_read_change_nothing(workers: int, expected: dict[str, bytes], tmp_path: Path) -> None:
    reader = replace(READER, log=tmp_path / "log")
    prepare_frames(reader, tmp_path / "cache", SIZE, workers=workers)
    assert files(tmp_path / "cache") == expected
    assert reader.seen() == list(range(COUNT))


def test_a_reader_that_cannot_be_pickled_and_torchs_generator_are_left_in_peace(tmp_path: Path) -> None:
    torch.manual_seed(3)
    wanted = torch.rand(2)
    torch.manual_seed(3)
    prepare_frames(replace(READER, do=lambda: None), tmp_path, SIZE, workers=2)
    assert torch.equal(torch.rand(2), wanted)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(("adds", "every"), [(1, 5), (14, 5), (COUNT, 7)])
def test_a_killed_process_is_gone_on_with(
    workers: int, adds: int, every: int, expected: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    monkeypatch.setattr(frame_writer, "JOURNAL_FRAMES", every)
    with monkeypatch.context() as patch:
        patch.setattr(FrameWriter, "add", dies_after(adds))
        process = in_a_process(lambda: prepare_frames(READER, cache, SIZE, workers=workers))
    assert process.exitcode == -signal.SIGKILL
    assert done(cache) == adds - adds % every
    # At once: a worker of the killed process may still be there, and must not hold the folder.
    reader = replace(READER, log=tmp_path / "log")
    prepare_frames(reader, cache, SIZE, workers=workers)
    assert reader.seen() == list(range(adds - adds % every, COUNT))
    assert files(cache) == expected


def test_a_lock_that_a_dying_worker_lets_go_of_is_waited_for(
    half: Path, expected: dict[str, bytes], tmp_path: Path
) -> None:
    """A worker forked just before its process was killed still has the lock for a moment."""
    cache = tmp_path / "cache"
    shutil.copytree(half, cache)
    lock = folder_lock.hold(work(cache))
    assert lock is not None
    threading.Timer(0.5, lock.close).start()
    prepare_frames(READER, cache, SIZE)
    assert files(cache) == expected  # gone on with: nothing is left beside the store


def test_killed_again_and_again_it_ends(
    expected: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frame_writer, "JOURNAL_FRAMES", 2)
    with monkeypatch.context() as patch:
        patch.setattr(FrameWriter, "add", dies_after(5))
        for number in range(1, 6):
            assert in_a_process(lambda: prepare_frames(READER, tmp_path, SIZE)).exitcode == -signal.SIGKILL
            assert done(tmp_path) == 4 * number
    prepare_frames(READER, tmp_path, SIZE)
    assert files(tmp_path) == expected


def test_a_stop_from_the_keyboard_leaves_no_process_and_is_gone_on_with(
    expected: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frame_writer, "JOURNAL_FRAMES", 1)
    cache, flag = tmp_path / "cache", tmp_path / "flag"

    def stop() -> None:
        flag.touch()
        time.sleep(60)

    def prepare() -> None:
        try:
            prepare_frames(replace(READER, at=9, do=stop), cache, SIZE, workers=2)
        except KeyboardInterrupt:
            os._exit(130)

    process = in_a_process(prepare, wait=False)
    until = time.monotonic() + 60
    while not flag.exists() or not list(cache.glob(".preparing-*/journal.jsonl")) or done(cache) < 8:
        assert time.monotonic() < until
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    process.join()
    assert process.exitcode == 130
    assert process.pid not in sessions()
    reader = replace(READER, log=tmp_path / "log")
    prepare_frames(reader, cache, SIZE, workers=2)
    assert reader.seen() == list(range(8, COUNT))
    assert files(cache) == expected


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory, expected: dict[str, bytes]) -> Path:
    """Work that was interrupted after nineteen frames, with a line of the journal for every two."""
    cache = tmp_path_factory.mktemp("half") / "cache"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frame_writer, "JOURNAL_FRAMES", 2)
        patch.setattr(FrameWriter, "add", dies_after(19))
        assert in_a_process(lambda: prepare_frames(READER, cache, SIZE)).exitcode == -signal.SIGKILL
    assert done(cache) == 18
    return cache


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_a_crash_cuts_off_is_made_again(
    data: st.DataObject, half: Path, expected: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory
) -> None:
    cache = tmp_path_factory.mktemp("torn") / "cache"
    shutil.copytree(half, cache)
    journal_file = work(cache) / "journal.jsonl"
    names = sorted(file.name for file in (work(cache) / "store").iterdir())
    for name in data.draw(st.sets(st.sampled_from(["journal.jsonl", *names]), min_size=1), "cut"):
        file = journal_file if name == "journal.jsonl" else work(cache) / "store" / name
        os.truncate(file, data.draw(st.integers(0, file.stat().st_size), name))
    if data.draw(st.booleans(), "junk"):
        junk = data.draw(st.sampled_from([b'{"bytes": 3}\n', b"\xff" * 99, b"{}", b"[]\n\n"]))
        journal_file.write_bytes(journal_file.read_bytes() + junk)
    prepare_frames(READER, cache, SIZE)
    assert files(cache) == expected
    shutil.rmtree(cache.parent)


def test_a_torn_last_line_costs_its_frames_alone(half: Path, expected: dict[str, bytes], tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    shutil.copytree(half, cache)
    file = work(cache) / "journal.jsonl"
    file.write_bytes(file.read_bytes()[:-1])
    reader = replace(READER, log=tmp_path / "log")
    prepare_frames(reader, cache, SIZE)
    assert reader.seen() == list(range(16, COUNT)) and files(cache) == expected


def test_work_on_another_number_of_frames_is_begun_afresh(
    half: Path, expected: dict[str, bytes], tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    shutil.copytree(half, cache)
    file = work(cache) / "journal.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    assert json.loads(lines[0]) == {"version": 1, "entries": COUNT}
    file.write_text(json.dumps({"version": 1, "entries": COUNT + 1}) + "\n" + "".join(lines[1:]))
    reader = replace(READER, log=tmp_path / "log")
    prepare_frames(reader, cache, SIZE)
    assert reader.seen() == list(range(COUNT)) and files(cache) == expected


def test_what_was_done_before_still_counts_against_what_comes(half: Path, tmp_path: Path) -> None:
    for change, complaint in (
        ({"name": "000"}, "000: expected every name once"),
        ({"part": "all"}, "020: part: expected one of"),
        ({"image": None, "pixels": None}, "020: image: expected 6 x 9 .* as in 000, found none"),
    ):
        cache = tmp_path / "cache"
        shutil.copytree(half, cache, dirs_exist_ok=True)
        broken = frame(20, 3)._replace(**change)
        reader = replace(READER, given=(*READER.given[:20], broken, *READER.given[21:]))
        with pytest.raises(DataError, match=complaint):
            prepare_frames(reader, cache, SIZE)
        assert not any(cache.iterdir()), "what is wrong with the data would be wrong again"


def test_the_second_of_two_processes_works_for_itself(expected: dict[str, bytes], tmp_path: Path) -> None:
    cache = tmp_path / "cache"

    def second() -> None:
        assert in_a_process(lambda: prepare_frames(READER, cache, SIZE)).exitcode == 0
        (folder,) = [path for path in cache.iterdir() if not path.name.startswith(".")]
        assert content(folder) == expected

    reader = replace(READER, log=tmp_path / "log", at=11, do=second)
    prepare_frames(reader, cache, SIZE)
    assert reader.seen() == list(range(COUNT)) and files(cache) == expected


def test_a_folder_that_stays_held_is_not_touched(half: Path, expected: dict[str, bytes], tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    shutil.copytree(half, cache)
    before = content(work(cache) / "store")
    lock = folder_lock.hold(work(cache))
    assert lock is not None and folder_lock.hold(work(cache)) is None
    with lock:
        store = prepare_frames(READER, cache, SIZE)
        assert content(store.path) == expected and content(work(cache) / "store") == before


def test_many_at_once(expected: dict[str, bytes], tmp_path: Path) -> None:
    reader = replace(READER, at=13, do=lambda: time.sleep(0.05))
    fork = multiprocessing.get_context("fork")
    tasks = [fork.Process(target=prepare_frames, args=(reader, tmp_path, SIZE)) for _ in range(4)]
    for task in tasks:
        task.start()
    for task in tasks:
        task.join(60)
    assert [task.exitcode for task in tasks] == [0] * 4
    assert files(tmp_path) == expected


def test_old_work_is_removed_unless_somebody_is_at_it(half: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    shutil.copytree(half, cache)
    folder = work(cache)

    def age(seconds: float) -> None:
        for path in (*folder.rglob("*"), folder):
            os.utime(path, (time.time() - seconds,) * 2)

    for number, seconds, held, kept in (
        (0, publish.RESUMABLE_SECONDS / 2, False, True),
        (1, 2 * publish.RESUMABLE_SECONDS, True, True),
        (2, 2 * publish.RESUMABLE_SECONDS, False, False),
    ):
        age(seconds)
        lock = folder_lock.hold(folder) if held else None
        age(seconds)
        prepare_frames(replace(READER, version=number + 1), cache, SIZE)
        assert folder.exists() == kept
        if lock is not None:
            lock.close()
    assert list(cache.glob(".preparing-*")) == []


def test_old_work_on_the_same_data_is_gone_on_with(half: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    shutil.copytree(half, cache)
    for path in (*work(cache).rglob("*"), work(cache)):
        os.utime(path, (0, 0))
    reader = replace(READER, log=tmp_path / "log")
    prepare_frames(reader, cache, SIZE)
    assert reader.seen() == list(range(18, COUNT))


@pytest.mark.parametrize("workers", [0, 2])
def test_what_a_reader_complains_of_is_said_in_one_line(workers: int, tmp_path: Path) -> None:
    def complain() -> None:
        raise DataError("calib.txt: expected P2, found nothing")

    with pytest.raises(DataError) as caught:
        prepare_frames(replace(READER, at=9, do=complain), tmp_path, SIZE, workers=workers)
    assert str(caught.value) == "calib.txt: expected P2, found nothing"
    assert work(tmp_path).is_dir(), "the file may be there the next time"


@pytest.mark.parametrize("workers", [0, 2])
def test_a_mistake_in_a_reader_keeps_its_kind_and_what_was_done(
    workers: int, expected: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frame_writer, "JOURNAL_FRAMES", 1)
    cache = tmp_path / "cache"
    at = 2 * RUN
    with pytest.raises(ZeroDivisionError):
        prepare_frames(replace(READER, at=at, do=lambda: 1 / 0), cache, SIZE, workers=workers)
    assert done(cache) == at
    prepare_frames(READER, cache, SIZE)
    assert files(cache) == expected


def test_a_killed_worker_is_named_and_its_work_gone_on_with(expected: dict[str, bytes], tmp_path: Path) -> None:
    reader = replace(READER, at=9, do=lambda: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(WorkerLost, match="a process that reads frames ended, perhaps for want of memory"):
        prepare_frames(reader, tmp_path, SIZE, workers=2)
    assert work(tmp_path).is_dir()
    prepare_frames(READER, tmp_path, SIZE, workers=2)
    assert files(tmp_path) == expected


def test_a_number_of_workers_below_none_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="workers: expected 0 or more, found -1"):
        prepare_frames(READER, tmp_path, SIZE, workers=-1)
    assert 0 <= reading_workers(3) <= 3 and reading_workers(3) != 1


def test_progress_says_how_many_and_from_where(
    half: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    prepare_frames(READER, tmp_path, SIZE, progress=True)
    assert f"preparing {COUNT} of {COUNT} frames, 7 skipped" in capfd.readouterr().err
    shutil.copytree(half, tmp_path / "cache")
    prepare_frames(READER, tmp_path / "cache", SIZE, progress=True)
    assert f"preparing {COUNT} of {COUNT} frames, 7 skipped, going on from 18" in capfd.readouterr().err


def test_a_plain_script_with_a_reader_of_its_own_uses_workers(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from pathlib import Path\n"
        "import numpy as np\n"
        "from isthmus.data.frame_store import prepare_frames\n"
        "from isthmus.data.frames import Frame\n"
        "class Mine:\n"
        "    classes = ('a',)\n"
        "    def fingerprint(self): return {'mine': 1}\n"
        "    def entries(self): return list('abcdefghij')\n"
        "    def read(self, entry):\n"
        "        return Frame(np.full((2, 3), ord(entry), np.float32), None, None, None, entry, 'train')\n"
        f"prepare_frames(Mine(), Path({str(tmp_path / 'cache')!r}), None, workers=2)\n"
    )
    subprocess.run([sys.executable, script], check=True, timeout=200)
    (folder,) = (tmp_path / "cache").iterdir()
    assert FrameStore(folder).points[::2, 0].tolist() == [ord(letter) for letter in "abcdefghij"]
