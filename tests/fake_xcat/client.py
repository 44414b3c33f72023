"""Body of every command of the fake xCAT: asks the fake xcatd, prints, ends with its code.

It runs alone, without this project on its path: standard library only.
"""

import json
import os
import socket
import sys
import time

FLOOD_BYTES = 100 << 20


def main(path: str) -> int:
    name, arguments = os.path.basename(sys.argv[0]), sys.argv[1:]
    try:
        with socket.socket(socket.AF_UNIX) as link:
            link.connect(path)
            link.sendall(json.dumps([name, arguments, os.getpid()]).encode() + b"\n")
            text = b""
            while chunk := link.recv(1 << 16):
                text += chunk
    except OSError as err:
        # As xCAT's Client.pm: two lines on stdout, the reason on stderr.
        print("Unable to open socket connection to xcatd daemon on localhost:3001.")
        print("Verify that the xcatd daemon is running and that your SSL setup is correct.")
        sys.stderr.write(
            f"Connection failure: IO::Socket::INET: connect: {err.strerror} at Client.pm line 236\n"
        )
        return 255
    if not text:
        sys.stderr.write(
            "ERROR/WARNING: communication with the xCAT server seems to have been "
            "ended prematurely\n"
        )
        return 0
    answer = json.loads(text)
    sys.stdout.write(answer["out"])
    sys.stdout.flush()
    sys.stderr.write(answer["err"])
    act(answer["act"])
    return int(answer["code"])


def act(what: str) -> None:
    if what == "hang":
        if os.fork() == 0:
            os.setpgid(0, os.getpgid(os.getppid()))
        time.sleep(3600)
    elif what == "flood":
        block = b"node: noise\n" * 10000
        for _ in range(FLOOD_BYTES // len(block)):
            os.write(1, block)
    elif what == "no-newline":
        for _ in range(FLOOD_BYTES >> 20):
            os.write(1, b"x" * (1 << 20))
    elif what == "bad-utf8":
        os.write(1, b"\xff\xfe\x80 rubbish \xc3\n")
