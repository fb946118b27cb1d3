"""Tasks of writing, whose ids begin with `text/`: texts that follow instructions a program can check.

instructions.py  `text/Instructions-v0`: a short text about a topic, within constraints
constraints.py   the kinds of constraints: how each is read off a text, asked for and checked
layouts.py       prose, lists, JSON and other layouts: how each is asked for, written and taken apart
drafts.py        texts to read constraints off, from the sentences in drafts.txt
reading.py       words, sentences, paragraphs and letters of a text, and whether it is plain English
"""
