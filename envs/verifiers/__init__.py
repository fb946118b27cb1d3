"""Text in, `Judgement` out.

answer_extraction.py   the answer in what a model wrote: answer line, box, "####", last number; emphasis, thinking
program_extraction.py  the program in what a model wrote
math/                  whether an answer is the gold answer
code/                  whether a program passes its tests
"""
