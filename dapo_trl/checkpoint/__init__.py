"""Checkpoints: what is saved, and how a run goes on from it.

files.py              complete and torn checkpoints, and which one to resume from
batch_shape.py        going on with another number of processes
resumable_trainer.py  saving and loading within Hugging Face's trainer
"""
