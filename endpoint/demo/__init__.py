"""`parley demo`: one whole meeting in separate processes on this machine, judged without mercy.

`run` is the story, `desktop` what happens on the presenter's screen, `member` the process of one member, `taps` what the servers saw.
"""
