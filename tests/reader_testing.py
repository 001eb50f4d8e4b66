"""What every reader of frames must do."""

import pickle

import numpy as np

from isthmus.data.frames import FrameReader, frames


def check_frames_by_themselves(reader: FrameReader, most: int = 10_000) -> None:
    """Frames are the same read in turn, and backwards by a copy that has travelled to another process.

    ``most`` bounds the bytes of the copy, where content of files must not travel along.
    """
    expected = list(frames(reader))
    content = pickle.dumps(reader)
    assert len(content) <= most
    copy, entries = pickle.loads(content), pickle.loads(pickle.dumps(reader.entries()))
    assert len(entries) == len(expected)
    for entry, frame in reversed(list(zip(entries, expected))):
        found = copy.read(entry)
        assert type(found) is type(frame)
        for value, wanted in zip(found, frame):
            np.testing.assert_array_equal(value, wanted)
    assert copy.fingerprint() == reader.fingerprint()
