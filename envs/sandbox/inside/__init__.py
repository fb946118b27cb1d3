"""What runs behind the wall, in a process of its own that imports nothing of the project.

The `zygote` forks one `supervisor` per program, which forks every `worker` that the program runs in. `codec` and
`frames` are imported by the other side too.
"""
