"""Without standard output or error, or with one that breaks, every command works, silently."""

from __future__ import annotations

import io
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from fedbench.cli import main
from fedbench.cli.streams import Streams

FULL = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")


def program(code: str, **more: object) -> subprocess.Popen[bytes]:
    """Start a Python program of a few lines, which need not import torch."""
    head = "import os, sys\nfrom fedbench.cli.streams import Streams\n"
    return subprocess.Popen([sys.executable, "-c", head + code], **more)  # type: ignore[call-overload]


class TestMissing:
    @pytest.mark.parametrize(
        "words",
        [
            ["--help"],
            ["plugins"],
            ["plugins", "show", "sgd"],
            ["data"],
            ["cards"],
            ["config", "fedavg"],
            ["partition", "--data", "digits"],
            ["run", "fedavgg"],
        ],
        ids=" ".join,
    )
    def test_every_command_works(self, words, fedbench, monkeypatch):
        expected = fedbench(*words).exit_code
        monkeypatch.setattr(sys, "stdout", None)
        monkeypatch.setattr(sys, "stderr", None)
        with pytest.raises(SystemExit) as end:
            main(words, prog_name="fedbench")
        assert (end.value.code, sys.stdout, sys.stderr) == (expected, None, None)

    @pytest.mark.parametrize("executor", ["inline", "pool"])
    def test_a_run_keeps_its_result(self, executor, fedbench, few, monkeypatch):
        assert fedbench("run", "fedavg", *few, "--out", "seen").exit_code == 0
        monkeypatch.setattr(sys, "stdout", None)
        monkeypatch.setattr(sys, "stderr", None)
        words = ["run", "fedavg", *few, "--executor", executor, "--workers", "2", "--out", "unseen"]
        with pytest.raises(SystemExit) as end:
            main(words if executor == "pool" else [*words[:-4], *words[-2:]])
        assert end.value.code == 0
        seen, unseen = (json.loads(Path(d, "result.json").read_text()) for d in ("seen", "unseen"))
        assert seen["weights_sha256"] == unseen["weights_sha256"]

    def test_no_file_gets_the_number_of_a_closed_descriptor(self, tmp_path):
        code = (
            "with Streams():\n"
            "    file = open('kept', 'w')\n"
            "    os.write(1, b'native code prints')\n"
            "    print('unseen', flush=True)\n"
            "    file.write(str(file.fileno() > 2))\n"
        )
        child = program(code, cwd=tmp_path, preexec_fn=lambda: os.closerange(0, 3))
        assert child.wait(60) == 0
        assert (tmp_path / "kept").read_text() == "True"

    def test_a_stream_that_was_closed(self, monkeypatch):
        closed = io.StringIO()
        closed.close()
        monkeypatch.setattr(sys, "stdout", closed)
        with Streams():
            print("unseen")
        assert sys.stdout is closed


class TestBroken:
    @pytest.mark.parametrize("unbuffered", ["", "1"])
    def test_a_reader_that_leaves_is_not_waited_for(self, tmp_path, unbuffered):
        code = (
            "with Streams():\n"
            "    for _ in range(10_000):\n"
            "        print('more than a pipe holds')\n"
            "    open('done', 'w').close()\n"
            "    sys.exit(0)\n"
        )
        environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
        child = program(
            code, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
        )
        with child:
            assert child.stdout.readline() == b"more than a pipe holds\n"
            child.stdout.close()
            assert child.stderr.read() == b""
        assert child.returncode == 0
        assert (tmp_path / "done").exists()

    def test_a_terminal_that_hangs_up(self, tmp_path):
        ours, theirs = pty.openpty()
        code = (
            "import time\n"
            "with Streams():\n"
            "    print('begun', flush=True)\n"
            "    while not os.path.exists('gone'):\n"
            "        time.sleep(0.01)\n"
            "    print('unseen', flush=True)\n"
            "    open('done', 'w').close()\n"
            "    sys.exit(0)\n"
        )
        child = program(code, cwd=tmp_path, stdout=theirs)
        os.close(theirs)
        assert os.read(ours, 100).startswith(b"begun")
        os.close(ours)
        (tmp_path / "gone").touch()
        assert child.wait(60) == 0
        assert (tmp_path / "done").exists()

    @FULL
    def test_output_that_was_to_be_kept_and_is_lost_is_an_error_at_the_end(self, tmp_path):
        code = (
            "with Streams():\n"
            "    print('kept?', flush=True)\n"
            "    open('done', 'w').close()\n"
            "    sys.exit(0)\n"
        )
        with Path("/dev/full").open("w") as full:
            child = program(code, cwd=tmp_path, stdout=full, stderr=subprocess.PIPE)
        _, errors = child.communicate(timeout=60)
        assert (child.returncode, errors) == (
            1,
            b"Error: standard output: No space left on device\n",
        )
        assert (tmp_path / "done").exists(), "the command itself is not disturbed"

    def test_a_character_that_the_encoding_lacks_is_shown_by_its_number(self, monkeypatch):
        reader, writer = os.pipe()
        with os.fdopen(writer, "w", encoding="ascii") as stream:
            monkeypatch.setattr(sys, "stdout", stream)
            with Streams():
                print("━ é \udcff")
        with os.fdopen(reader, "rb") as output:
            assert output.read() == b"\\u2501 \\xe9 \\udcff\n"

    def test_a_descriptor_that_does_not_block_is_waited_for(self, tmp_path):
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        code = "with Streams():\n    print(200_000 * 'x')\n"
        child = program(code, cwd=tmp_path, stdout=writer)
        os.close(writer)
        with os.fdopen(reader, "rb") as output:
            assert len(output.read()) == 200_001
        assert child.wait(60) == 0
