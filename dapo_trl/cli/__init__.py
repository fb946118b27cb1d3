"""The command line ``dapo-trl``: one file for each command.

main.py    the commands put together; exit codes
outline.py the settings of a command, read from source before torch is imported
help.py    --help by groups of settings
train.py   train a model
eval.py    measure a model, or compare two measurements
triage.py  sort the rows of a task before training
warmup.py  a cold start on written solutions
launch.py  train or evaluate on several processes
plan.py    what a run will do and whether it fits
envs.py    list, show and check environments; judge recorded verdicts again
envs_new.py  write a package with an environment of one's own
report.py  a run as a page: report, watch
configs.py list the configuration files that come with the project
merge.py   merge an adapter into its base model
"""
