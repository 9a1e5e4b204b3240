"""The readable twin: the value law and the wire in plain Python, written from the documents alone.

It shares no code with the Rust library, so that each can be held against the other. It favours
what a reader can check by eye over speed, and needs numpy and xxhash only.
"""
