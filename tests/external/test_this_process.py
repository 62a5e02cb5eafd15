import os

from curitorch.external import this_process


def test_a_fork_and_a_fork_of_it_know_their_own_number():
    assert this_process.pid == os.getpid()
    child = os.fork()
    if child == 0:
        grandchild = os.fork()
        is_own = this_process.pid == os.getpid()
        if grandchild:
            is_own = is_own and os.waitpid(grandchild, 0)[1] == 0
        os._exit(not is_own)
    assert os.waitpid(child, 0)[1] == 0
    assert this_process.pid == os.getpid()
