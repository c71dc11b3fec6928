"""What the user allows: safe and strict unless a block says otherwise."""
from __future__ import annotations

from dataclasses import FrozenInstanceError
from threading import Event, Thread

import pytest

from mmdcn.checkpoints import LoadingPolicy, current_policy, loading_policy


def test_safe_and_strict_by_default():
    assert current_policy() == LoadingPolicy(trust=False, min_match=0.99)


@pytest.mark.parametrize(('settings', 'expected'), [
    (dict(), (False, 0.99)),
    (dict(trust=True), (True, 0.99)),
    (dict(min_match=0.5), (False, 0.5)),
    (dict(min_match=0), (False, 0)),  # zero is a wish, None is none
    (dict(trust=True, min_match=None), (True, 0.99)),
])
def test_a_block_has_its_own_policy(settings, expected):
    with loading_policy(**settings):
        policy = current_policy()
        assert (policy.trust, policy.min_match) == expected
    assert current_policy() == LoadingPolicy()


def test_an_inner_block_inherits_nothing_and_gives_back():
    with loading_policy(trust=True, min_match=0.1):
        with loading_policy(min_match=0.5):
            assert current_policy() == LoadingPolicy(False, 0.5)
        assert current_policy() == LoadingPolicy(True, 0.1)
        with loading_policy():
            assert current_policy() == LoadingPolicy()
        assert current_policy() == LoadingPolicy(True, 0.1)
    assert current_policy() == LoadingPolicy()


def test_an_error_ends_the_block_too():
    with loading_policy(min_match=0.2):
        with pytest.raises(KeyError), loading_policy(trust=True):
            raise KeyError('x')
        assert current_policy() == LoadingPolicy(False, 0.2)
    assert current_policy() == LoadingPolicy()


def test_policy_is_of_this_thread():
    seen = []
    with loading_policy(trust=True):
        thread = Thread(target=lambda: seen.append(current_policy().trust))
        thread.start()
        thread.join()
    assert seen == [False] and not current_policy().trust


def test_a_block_of_another_thread_does_not_reach_this_one():
    entered, leave = Event(), Event()

    def hold():
        with loading_policy(trust=True, min_match=0):
            entered.set()
            leave.wait(10)

    thread = Thread(target=hold)
    thread.start()
    try:
        assert entered.wait(10)
        assert current_policy() == LoadingPolicy()
        with loading_policy(min_match=0.7):
            leave.set()
            thread.join()
            assert current_policy() == LoadingPolicy(False, 0.7)
    finally:
        leave.set()
        thread.join()


@pytest.mark.parametrize('name', ['trust', 'min_match'])
def test_a_policy_in_force_cannot_be_changed(name):
    with pytest.raises(FrozenInstanceError):
        setattr(current_policy(), name, 1)
