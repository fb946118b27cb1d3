"""`attack_reward`: a reward is attacked by training a small policy on it, with the right answers hidden from it.

attack.py    the function: training, the rows held out, what is found
moves.py     PURE: payloads, edits and forms of which an answer is made
policy.py    PURE: a factored softmax policy, trained with REINFORCE
report.py    PURE: which of the learnt strategies are holes, judged with the right answers
"""
