"""What runs behind the wall, in a process of its own that imports nothing of the project.

zygote.py            forks one supervisor per program
supervisor.py        forks the workers of a program, and reports how they end
confined_process.py  a worker as its supervisor sees it
worker.py            where the program runs
substitutes.py       what programs find in place of what the walls take away
confine.py           Landlock, limits, users and the filter of system calls
kernel.py            system calls that some builds of Python lack
codec.py, frames.py  values and messages; the other side imports them too
"""
