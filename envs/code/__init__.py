"""Programming tasks.

program.py   `code/Program-v0`: one answer, one program
repair.py    `code/Repair-v0`: several attempts, with what went wrong in between
problems.py  from rows to problems, read once per process
formats.py   readers for the rows of well-known data sets
datasets.py  those data sets and their settings
packed.py    private tests as LiveCodeBench packs them
prompts.py   asking for a program, and finding it in an answer
"""
