"""Users of files that two movers serve: load.py make|early|late|check|release DIR [SECONDS]

make: the files of a case, half of them on each MDT; some get a copy and are released.
early: what is under way when something happens: readers of released files, archives, removes. late: what is asked for then.
check: reads every file. release: gives up the data of all files that have a copy.

A file's bytes follow from its name, so that everybody can tell whether they are right. What ends is told line by line; SECONDS
are for all of it, and what has not ended by then is told, too.
"""
import errno
import hashlib
import os
import subprocess
import sys
import threading
import time

verb, directory = sys.argv[1:3]
began = time.monotonic()
end = began + float(sys.argv[3] if len(sys.argv) > 3 else 600)
ROLES = ["read"] * 10 + ["archive"] * 10 + ["read-late"] * 5 + ["archive-late"] * 5 + ["remove"] * 2
lock = threading.Lock()


def tell(*words):
    with lock:
        print(*words, flush=True)


def path(n):
    return os.path.join(directory, "mdt%d" % (n % 2), "f%02d" % n)


def of(*roles):
    return [path(n) for n, role in enumerate(ROLES) if role in roles]


def content(name):
    n = int(os.path.basename(name)[1:])
    # Every third one is an upload in parts.
    size = (8 << 20 if n % 3 == 0 else 1 << 20) + 1000 * n + 1
    seed = os.path.basename(directory) + os.path.basename(name)
    return hashlib.shake_128(seed.encode()).digest(size)


def lfs(*words):
    done = subprocess.run(["lfs", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        tell("# lfs", *words[:2], "…:", done.stderr.strip().replace("\n", " | "))
    return done.stdout


def said(what, paths):
    """What lfs says of each, without its name."""
    lines = lfs(what, *paths).splitlines() if paths else []
    return {line.partition(": ")[0]: line.partition(": ")[2] for line in lines}


def is_archived(state):
    return " archived" in state and " dirty" not in state


def until_archived(left):
    """Asks for copies. What nobody does any more is asked for again."""
    started, idle, looked = time.monotonic(), set(), time.monotonic()
    lfs("hsm_archive", "--archive", "1", *left)
    tell("begun")
    while left and time.monotonic() < end:
        states = said("hsm_state", left)
        for name in [name for name in left if is_archived(states.get(name, ""))]:
            left.remove(name)
            tell("archived", os.path.basename(name), "%.1f" % (time.monotonic() - started))
        if left and time.monotonic() > looked + 5:
            looked = time.monotonic()
            now = {name for name, action in said("hsm_action", left).items() if action.startswith("NOOP")}
            # It may just have ended, well: that is seen in between.
            again = sorted(now & idle)
            if again:
                tell("asked-again", *map(os.path.basename, again))
                lfs("hsm_archive", "--archive", "1", *again)
            idle = now - set(again)
        time.sleep(1)
    for name in left:
        tell("left archive", os.path.basename(name))


def read(name, right, unread):
    started = time.monotonic()
    try:
        with open(name, "rb") as file:
            found = file.read()
        took = time.monotonic() - started
        how = "ok" if found == right else "wrong"
    except OSError as error:
        took = time.monotonic() - started
        how = errno.errorcode.get(error.errno, str(error.errno))
    tell("read", os.path.basename(name), "%.1f" % took, how)
    with lock:
        unread.discard(name)


def readers(names):
    unread = set(names)
    # Before any of them has begun: it takes an emulated machine its time
    right = {name: content(name) for name in names}
    threads = [threading.Thread(target=read, args=(name, right[name], unread), daemon=True) for name in names]
    for thread in threads:
        thread.start()
    return threads, unread


def joined(threads, unread):
    for thread in threads:
        thread.join(max(0, end - time.monotonic()))
    with lock:
        late = sorted(unread)
    for name in late:
        tell("left read", os.path.basename(name))


def release(names):
    for name in names:
        for _ in range(5):
            lfs("hsm_release", name)
            if "released" in said("hsm_state", [name]).get(name, ""):
                break
            time.sleep(1)
        else:
            tell("left release", os.path.basename(name))


if verb == "make":
    os.mkdir(directory)
    for mdt in "0", "1":
        lfs("mkdir", "-i", mdt, os.path.join(directory, "mdt" + mdt))
    for name in of(*ROLES):
        with open(name, "wb") as file:
            file.write(content(name))
    os.sync()
    until_archived(of("read", "read-late", "remove"))
    release(of("read", "read-late"))
elif verb in ("early", "late"):
    late = verb == "late"
    waiting = readers(of("read-late" if late else "read"))
    if not late:
        lfs("hsm_remove", *of("remove"))
    until_archived(of("archive-late" if late else "archive"))
    joined(*waiting)
elif verb == "check":
    # What is in memory proves nothing
    subprocess.run("lctl set_param -n ldlm.namespaces.*.lru_size=clear; echo 3 >/proc/sys/vm/drop_caches", shell=True,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    names = of(*ROLES)
    for at in range(0, len(names), 8):
        joined(*readers(names[at:at + 8]))
else:
    states = said("hsm_state", of(*ROLES))
    release([name for name, state in sorted(states.items()) if is_archived(state) and " released" not in state])
tell("end")
# Threads that still wait don't hold it
os._exit(0)
