"""The policy learns what is paid, and never stops exploring."""

from envs.attack.policy import Policy


def train(pays, steps=1500):
    policy = Policy([[1.0] * 20, [4.0, 1.0, 1.0]], seed=0)
    for _ in range(steps):
        choice = policy.draw()
        policy.learn(choice, pays(choice))
    return policy


def test_it_finds_the_one_that_is_paid():
    policy = train(lambda choice: float(choice == (13, 2)))
    draws = [policy.draw() for _ in range(300)]
    assert policy.best(3) == [(13, 2)]
    assert 0.5 < draws.count((13, 2)) / 300 < 0.95 and len(set(draws)) > 30


def test_nothing_is_learnt_from_rewards_that_are_all_the_same():
    policy = train(lambda choice: 0.0)
    assert policy.best(3) == [] and len({policy.draw()[0] for _ in range(300)}) == 20


def test_the_best_are_of_different_first_options():
    best = train(lambda choice: 1.0 if choice[0] < 2 else 0.0).best(5)
    assert sorted(choice[0] for choice in best) == [0, 1]
