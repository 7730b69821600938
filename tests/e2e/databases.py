"""sqlite on a mount: counters that several processes increase, in both kinds of journal, while one of them is killed. Argument: a directory."""
import os, signal, sqlite3, sys, time

directory = sys.argv[1]
os.mkdir(directory)
ROUNDS, PROCESSES = 25, 3


def connect(path):
    connection = sqlite3.connect(path, timeout=60, isolation_level=None)
    connection.execute("pragma synchronous = normal")
    return connection


def increase(path, rounds):
    connection = connect(path)
    for _ in range(rounds):
        connection.execute("begin immediate")
        (value,) = connection.execute("select value from counter").fetchone()
        connection.execute("update counter set value = ?", (value + 1,))
        connection.execute("insert into history select value, randomblob(3000) from counter")
        connection.execute("commit")


def spawn(path, rounds):
    pid = os.fork()
    if pid == 0:
        try:
            increase(path, rounds)
            os._exit(0)
        except BaseException as error:
            print(error, flush=True)
            os._exit(1)
    return pid


for journal in ("delete", "wal"):
    path = f"{directory}/{journal}.db"
    connection = connect(path)
    assert connection.execute(f"pragma journal_mode = {journal}").fetchone() == (journal,)
    connection.execute("create table counter (value integer)")
    connection.execute("create table history (value integer unique, filler blob)")
    connection.execute("insert into counter values (0)")
    connection.close()
    doomed = spawn(path, 100_000)
    workers = [spawn(path, ROUNDS) for _ in range(PROCESSES)]
    time.sleep(1)
    os.kill(doomed, signal.SIGKILL)
    os.waitpid(doomed, 0)
    for worker in workers:
        assert os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1]) == 0, journal
    connection = connect(path)
    (value,) = connection.execute("select value from counter").fetchone()
    (count, highest) = connection.execute("select count(*), max(value) from history").fetchone()
    assert value == count == highest and value >= ROUNDS * PROCESSES, (journal, value, count, highest)
    assert connection.execute("pragma integrity_check").fetchone() == ("ok",), journal
    connection.close()
