"""One environment behind four doors: ours served to others, theirs used here under an id with a prefix.

doors.py               ids such as `openenv:URL`, `verifiers:ID` and `textarena:ID`, and what makes their environments
foreign.py             the base of theirs: rows, episodes, failures, and the rules of ours that they break
sessions.py            the live episodes of a foreign environment, as many at a time as it can hold
openenv_client.py      `openenv:URL`, an environment on an OpenEnv server
openenv_server.py      any environment of this package as an OpenEnv server (`dapo-trl envs serve`)
verifiers_client.py    `verifiers:ID`, a taskset of the package verifiers
verifiers_policy.py    the harness by which verifiers gets the model's turns from here
verifiers_taskset.py   any `TaskEnv` as a taskset of the package verifiers
textarena_games.py     `textarena:ID`, a game of the package textarena, alone or against a scripted opponent

Nothing here is imported before one of these ids is used: their packages are extras of this one.
"""
