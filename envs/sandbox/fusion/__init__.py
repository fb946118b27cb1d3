"""Programs on a farm of SandboxFusion servers.

sandbox.py  tasks of this package on such a server
servers.py  which of several servers takes a request, and what a failure means
far_end.py  what runs there
"""
