"""What makes a resumed training bitwise the one that was not interrupted, for every engine.

The order of samples and all randomness are functions of where the training stands; the rest of an
unfinished epoch, which Lightning's checkpoints leave out, is saved beside them.
"""
