"""Step 2b: a prompt becomes judged completions.

types.py           the records that travel: `Outcome`, `Sampled`, `Rollout`, `Group`, `TrainingRow`
environments.py    environments by id, wrappers by name, rows as prompts
prompting.py       system prompt, examples and template around the questions of an environment
dataset_prompts.py the same for the rows of a data set
chat_format.py     text to tokens and back, as the chat template writes it
episode.py         one episode of an environment, and its outcome
episode_runner.py  many episodes in tokens, judged beside generation
rewards.py         reward functions, the overlong penalty, and the columns they fill
trl_bridge.py      an environment as TRL's reward function and data set
trl_tools.py       an environment for TRL's own trainers (`environment_factory`)
"""
