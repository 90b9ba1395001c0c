"""How Ray is started, kept to this machine, and called.

environment  what Ray reads from the environment
ray_folder   where a local Ray keeps its sockets and logs
local_ray    starts a local Ray, or joins another one
loopback     keeps it to this machine
probe        whether a Ray listens at an address
watchdog     ends what is left of it after a kill
handles      calls between deployments
memory       what a gateway gives back to the system
logs         the log files of Serve's processes
"""
