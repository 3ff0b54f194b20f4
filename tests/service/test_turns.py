import threading

from service.turns import Turns


def test_whoever_has_waited_longest_is_next():
    turns, order, waiting = Turns(), [], []
    turns.take()
    for number in range(5):
        entered = threading.Event()

        def work(number=number, entered=entered):
            entered.set()
            with turns.one():
                order.append(number)

        thread = threading.Thread(target=work)
        thread.start()
        assert entered.wait(10)
        while len(turns._waiting) <= number:  # until it stands in the queue
            pass
        waiting.append(thread)
    turns.give()
    for thread in waiting:
        thread.join(10)
    assert order == [0, 1, 2, 3, 4]


def test_a_turn_that_is_given_up_goes_to_who_waits_and_not_back_to_its_giver():
    turns, order = Turns(), []
    turns.take()
    other = threading.Thread(target=lambda: [turns.take(), order.append("other"), turns.give()])
    other.start()
    while not turns._waiting:
        pass
    turns.give()
    turns.take()
    order.append("giver")
    turns.give()
    other.join(10)
    assert order == ["other", "giver"]


def test_two_never_have_it_at_once():
    turns, inside, most = Turns(), [], []

    def work():
        for _ in range(200):
            with turns.one():
                inside.append(1)
                most.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(most) == 800
    assert max(most) == 1
